"""The other end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from thorn_core import ConfigurationError, PayloadError, ReplayError, SignatureError
from thorn_core.receiver import MemoryReplayGuard, verify
from thorn_core.signatures import SCHEMES, HookHMAC, Signable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def signed(body, *, scheme="standard-webhooks", identity="msg_1", at=NOW, **headers):
    timestamp = int(at.timestamp())
    made = SCHEMES[scheme].sign(Signable(id=identity, timestamp=timestamp, body=body), [SECRET])
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Webhook-Id": identity, "Webhook-Timestamp": str(timestamp), **made, **extra}


def received(body, *, scheme="standard-webhooks", **headers):
    return verify(body, signed(body, scheme=scheme, **headers), SECRET, scheme=scheme, now=NOW)


def test_the_message_is_what_thorn_sent():
    body = b'{"event":"a.b","ref":"https://e.com/","sender":"ada","data":{"n":1}}'
    message = received(body, Hook_Event="a.b")
    assert (message.id, message.event, message.at) == ("msg_1", "a.b", NOW)
    assert (message.ref, message.sender) == ("https://e.com/", "ada")
    assert message.payload == {"n": 1}


@pytest.mark.parametrize(
    ("document", "event", "payload"),
    [
        ({"type": "a.b", "timestamp": "2026", "data": [1]}, "a.b", [1]),
        ({"specversion": "1.0", "type": "a.b", "subject": "s", "data": 5}, "a.b", 5),
        ({"id": "evt_1", "type": "charge.paid"}, "charge.paid", None),
        ({"hello": 1}, "unknown", None),
        ([1, 2], "unknown", None),
        ("text", "unknown", None),
    ],
)
def test_other_envelopes_are_recognised(document, event, payload):
    message = received(json.dumps(document).encode())
    assert message.event == event
    assert message.payload == (document if payload is None else payload)


def test_a_form_is_read_as_a_form():
    message = received(
        b"event=a.b&ref=&data%5Bn%5D=1", content_type="application/x-www-form-urlencoded"
    )
    assert (message.event, message.payload) == ("a.b", {"data[n]": "1"})


def test_githubs_and_stripes_headers_say_what_it_is():
    body = b'{"action":"opened"}'
    headers = signed(body, scheme="github", X_GitHub_Event="issues", X_GitHub_Delivery="d-1")
    del headers["Webhook-Id"]
    message = verify(body, headers, SECRET, scheme="github", now=NOW)
    assert (message.event, message.id) == ("issues", "d-1")
    body = b'{"id":"evt_1","type":"charge.paid"}'
    headers = signed(body, scheme="stripe")
    del headers["Webhook-Id"]
    message = verify(body, headers, SECRET, scheme="stripe", now=NOW)
    assert (message.event, message.id) == ("charge.paid", "evt_1")


def test_without_any_id_the_body_identifies_it():
    headers = signed(b"{}", scheme="hook-hmac")
    del headers["Webhook-Id"]
    message = verify(b"{}", headers, SECRET, scheme="hook-hmac", now=NOW)
    assert len(message.id) == 64


def test_what_is_not_genuine_is_refused():
    with pytest.raises(SignatureError):
        verify(b"{ }", signed(b"{}"), SECRET, now=NOW)
    with pytest.raises(SignatureError, match="too old"):
        verify(b"{}", signed(b"{}"), SECRET, tolerance=5, now=NOW + timedelta(seconds=6))


def test_the_clock_is_read_where_no_time_is_given():
    with pytest.raises(SignatureError, match="too old"):
        verify(b"{}", signed(b"{}", at=datetime(2020, 1, 1, tzinfo=UTC)), SECRET)
    assert verify(b"{}", signed(b"{}", at=datetime.now(UTC)), [SECRET, "other secret"])


def test_a_replay_is_refused():
    guard = MemoryReplayGuard()
    headers = signed(b"{}")
    verify(b"{}", headers, SECRET, replay=guard, now=NOW)
    with pytest.raises(ReplayError, match="msg_1 has been here"):
        verify(b"{}", headers, SECRET, replay=guard, now=NOW)
    verify(b"{}", signed(b"{}", identity="msg_2"), SECRET, replay=guard, now=NOW)


def test_without_a_signed_id_the_same_body_is_a_replay_whatever_the_headers_say():
    guard = MemoryReplayGuard()
    for number, expected in ((1, None), (2, ReplayError)):
        headers = {**signed(b"{}", scheme="github"), "X-GitHub-Delivery": str(number)}
        if expected is None:
            verify(b"{}", headers, SECRET, scheme="github", replay=guard, now=NOW)
        else:
            with pytest.raises(expected):
                verify(b"{}", headers, SECRET, scheme="github", replay=guard, now=NOW)


def test_a_forgery_is_not_remembered():
    guard = MemoryReplayGuard()
    with pytest.raises(SignatureError):
        verify(b"{ }", signed(b"{}"), SECRET, replay=guard, now=NOW)
    verify(b"{}", signed(b"{}"), SECRET, replay=guard, now=NOW)


def test_the_guard_forgets_what_is_over_and_is_bounded():
    guard = MemoryReplayGuard(limit=2)
    soon, later = NOW + timedelta(seconds=1), NOW + timedelta(seconds=9)
    assert guard.first_time("a", now=NOW, until=soon)
    assert not guard.first_time("a", now=NOW, until=soon)
    assert guard.first_time("a", now=soon, until=later)
    assert guard.first_time("b", now=soon, until=later + timedelta(seconds=1))
    assert guard.first_time("c", now=soon, until=later + timedelta(seconds=2))
    assert guard.first_time("a", now=soon, until=later + timedelta(seconds=3))
    assert not guard.first_time("c", now=soon, until=later)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json; charset=utf-8"),
        (b"[" * 100_000, "application/json"),
        (b"a", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(body, content_type):
    with pytest.raises(PayloadError, match="isn't the application"):
        received(body, content_type=content_type)


def test_a_body_that_is_too_large_is_refused_unread():
    with pytest.raises(PayloadError, match="has 11 bytes; at most 10"):
        verify(b"x" * 11, {}, SECRET, limit=10)


def test_no_secret_and_no_scheme_are_mistakes():
    with pytest.raises(ConfigurationError, match="no secret"):
        verify(b"", {}, [])
    with pytest.raises(ConfigurationError, match="no secret"):
        verify(b"", {}, "")
    with pytest.raises(ConfigurationError, match=r"known are .*stripe"):
        verify(b"", {}, SECRET, scheme="rot13")


def test_a_scheme_of_ones_own_can_be_given():
    signable = Signable(id="a", timestamp=0, body=b"{}", digest="sha512")
    headers = HookHMAC().sign(signable, [SECRET])
    scheme = HookHMAC(digest="sha512")
    assert verify(b"{}", headers, SECRET, scheme=scheme, tolerance=timedelta(1), now=NOW)
