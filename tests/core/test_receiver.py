"""The other end."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from thorn_core import ConfigurationError, PayloadError, ReplayError, SignatureError
from thorn_core.receiver import (
    Answer,
    Arrival,
    MemoryReplayGuard,
    Receiver,
    Seen,
    verify,
)
from thorn_core.receiver.receiving import LEASE
from thorn_core.signatures import SCHEMES, HookHMAC, Signable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "B" * 32


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
    with pytest.raises(SignatureError, match=r"; check the secret, and verify the raw body$"):
        verify(b"{ }", signed(b"{}"), SECRET, now=NOW)
    with pytest.raises(SignatureError, match=r"too old; the tolerance is 5 seconds$"):
        verify(b"{}", signed(b"{}"), SECRET, tolerance=5, now=NOW + timedelta(seconds=6))


def test_the_clock_is_read_where_no_time_is_given():
    with pytest.raises(SignatureError, match="too old"):
        verify(b"{}", signed(b"{}", at=datetime(2020, 1, 1, tzinfo=UTC)), SECRET)
    assert verify(b"{}", signed(b"{}", at=datetime.now(UTC)), [OTHER, SECRET])


def test_a_replay_is_refused():
    guard = MemoryReplayGuard()
    headers = signed(b"{}")
    verify(b"{}", headers, SECRET, replay=guard, now=NOW)
    with pytest.raises(ReplayError, match="msg_1 was already received"):
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
    assert guard.begin("a", now=NOW, until=soon) is Seen.NEW
    assert guard.begin("a", now=NOW, until=soon) is Seen.UNDER_WAY
    assert guard.begin("a", now=soon, until=later) is Seen.NEW
    assert guard.begin("b", now=soon, until=later + timedelta(seconds=1)) is Seen.NEW
    assert guard.begin("c", now=soon, until=later + timedelta(seconds=2)) is Seen.NEW
    assert guard.begin("a", now=soon, until=later + timedelta(seconds=3)) is Seen.NEW
    assert guard.begin("c", now=soon, until=later) is Seen.UNDER_WAY


def test_the_guard_knows_what_was_handled_and_what_was_forgotten():
    guard = MemoryReplayGuard(limit=10)
    soon, later = NOW + timedelta(seconds=1), NOW + timedelta(seconds=9)
    for key in ("done", "failed"):
        guard.begin(key, now=NOW, until=soon)
    guard.finish("done", now=NOW, until=later)
    guard.forget("failed")
    guard.forget("never seen")
    assert guard.begin("done", now=soon, until=later) is Seen.HANDLED
    assert guard.begin("failed", now=NOW, until=soon) is Seen.NEW
    assert guard.begin("done", now=later, until=later) is Seen.NEW


def test_the_guard_is_bounded_by_what_is_begun_and_forgotten_too():
    guard = MemoryReplayGuard(limit=3)
    for _ in range(100):
        guard.begin("a", now=NOW, until=NOW + timedelta(seconds=5))
        guard.forget("a")
    assert len(guard._by_time) <= 3


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
    with pytest.raises(PayloadError, match="is not valid application"):
        received(body, content_type=content_type)


def test_a_body_that_is_too_large_is_refused_unread():
    with pytest.raises(PayloadError, match="has 11 bytes; at most 10"):
        verify(b"x" * 11, {}, SECRET, limit=10)


def test_no_secret_and_no_scheme_are_mistakes():
    with pytest.raises(ConfigurationError, match="no secret"):
        verify(b"", {}, [])
    with pytest.raises(ConfigurationError, match="no secret"):
        verify(b"", {}, "")
    with pytest.raises(ConfigurationError, match=r"known schemes: .*stripe"):
        verify(b"", {}, SECRET, scheme="rot13")


def test_a_scheme_of_ones_own_can_be_given():
    signable = Signable(id="a", timestamp=0, body=b"{}", digest="sha512")
    headers = HookHMAC().sign(signable, [SECRET])
    scheme = HookHMAC(digest="sha512")
    assert verify(b"{}", headers, SECRET, scheme=scheme, tolerance=timedelta(1), now=NOW)


# -- what an adapter does


def taken(receiver, body=b"{}", *, headers=None, at=NOW, **options):
    headers = signed(body, at=at) if headers is None else headers
    return receiver.take(body, headers, SECRET, now=at, **options)


@pytest.fixture
def receiver():
    return Receiver(guard=MemoryReplayGuard())


def test_what_is_genuine_is_to_be_handled_once(receiver):
    arrival = taken(receiver)
    assert isinstance(arrival, Arrival)
    assert arrival.message.id == "msg_1"
    receiver.settle(arrival, handled=True, now=NOW)
    # A sender that missed the answer tries again, much later and signed anew.
    assert taken(receiver, at=NOW + timedelta(hours=2)) == Answer(status=200)
    assert isinstance(taken(receiver, at=NOW + timedelta(days=2)), Arrival)


def test_what_failed_is_handled_when_it_comes_again(receiver):
    receiver.settle(taken(receiver), handled=False)
    assert isinstance(taken(receiver), Arrival)


def test_what_is_under_way_is_to_come_again_until_whoever_handles_it_must_have_died(receiver):
    taken(receiver)
    answer = taken(receiver)
    assert (answer.status, answer.headers["Retry-After"]) == (409, "30")
    assert isinstance(taken(receiver, at=NOW + LEASE), Arrival)


def test_the_same_webhook_is_handled_at_each_endpoint(receiver):
    for endpoint in ("/a/", "/b/"):
        assert isinstance(taken(receiver, endpoint=endpoint), Arrival)
    assert taken(receiver, endpoint="/a/").status == 409


def test_nothing_may_be_remembered():
    receiver = Receiver(guard=MemoryReplayGuard(), remember=0)
    for _ in range(2):
        arrival = taken(receiver)
        receiver.settle(arrival, handled=True, now=NOW)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {}, 401),
        (b"{}", signed(b"{ }"), 401),
        (b"{}", signed(b"{}", at=NOW - timedelta(minutes=6)), 401),
        (b"{", signed(b"{"), 400),
        (b"x" * 101, {}, 413),
    ],
)
def test_a_refusal_says_nothing_but_is_logged(body, headers, status, caplog):
    guard = MemoryReplayGuard()
    answer = taken(Receiver(guard=guard, limit=100), body, headers=headers, endpoint="/in/")
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert set(problem) == {"title", "status"}
    assert problem["status"] == status
    (record,) = caplog.records
    assert record.getMessage().startswith("a webhook to '/in/' is refused: ")
    assert SECRET not in record.getMessage()
    assert guard._known == {}


def test_a_guard_that_fails_does_not_undo_what_was_handled(receiver, caplog, monkeypatch):
    def fail(*_, **__):
        raise OSError("the cache is away")

    arrival = taken(receiver)
    monkeypatch.setattr(receiver.guard, "finish", fail)
    receiver.settle(arrival, handled=True)
    assert "'msg_1' could not be recorded" in caplog.text


def test_of_many_that_come_at_once_one_is_handled(receiver):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: taken(receiver), range(50)))
    assert sum(isinstance(result, Arrival) for result in results) == 1
