"""CloudEvents that carry their payload in base64 (JSON format 1.0, section 3.1)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import PayloadError
from thorn_core.receiver import BODY_LIMIT, verify
from thorn_core.signatures import SCHEMES, Signable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BYTES = b"\x00\xff\xfe{"


def received(body, **options):
    signable = Signable(id="msg_1", timestamp=int(NOW.timestamp()), body=body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(signable.timestamp),
        "content-type": "application/cloudevents+json",
        **SCHEMES["standard-webhooks"].sign(signable, [SECRET]),
    }
    return verify(body, headers, SECRET, now=NOW, **options)


def event(encoded, content_type=None, **more):
    fields = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid"}
    if content_type is not None:
        fields["datacontenttype"] = content_type
    return json.dumps({**fields, "data_base64": encoded, **more}).encode()


def text(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("content_type", "data", "payload"),
    [
        (None, b'{"n":1}', {"n": 1}),
        ("application/json", b"[1]", [1]),
        ("application/JSON; charset=utf-8", b'"x"', "x"),
        ("application/vnd.shop+json", b'{"n":1}', {"n": 1}),
        ("application/x-www-form-urlencoded", b"n=1", {"n": "1"}),
        ("application/octet-stream", BYTES, text(BYTES)),
        ("application/octet-stream", b"", ""),
    ],
)
def test_the_payload_is_what_is_encoded(content_type, data, payload):
    message = received(event(text(data), content_type))
    assert (message.payload, message.event) == (payload, "order.paid")


def test_a_decoder_of_ones_own_decodes_it():
    body = event(text("grüß".encode()), "text/plain")
    assert received(body, decoders={"text/plain": bytes.decode}).payload == "grüß"
    with pytest.raises(PayloadError, match="data_base64 is not valid text/plain"):
        received(event(text(BYTES), "text/plain"), decoders={"text/plain": bytes.decode})


@pytest.mark.parametrize(
    "encoded",
    ["e30", "e30==", "e3=0", "e30=e30=", "e3 0=", "e30=\n", "e-_=", "é30=", "=", 7, None, ["e30="]],
)
@pytest.mark.parametrize("content_type", [None, "application/octet-stream"])
def test_what_is_no_base64_is_refused(encoded, content_type):
    with pytest.raises(PayloadError, match=r"data_base64 of the CloudEvent is not .*RFC 4648"):
        received(event(encoded, content_type))


def test_what_is_no_json_is_refused():
    for data in (b"{", b'{"n":1,"n":2}', b"NaN", BYTES, b"[" * 100_000):
        with pytest.raises(PayloadError, match="data_base64 is not valid application/json"):
            received(event(text(data)))


def test_data_twice_is_refused():
    with pytest.raises(PayloadError, match="both data and data_base64"):
        received(event("e30=", data=None))


def test_the_encoded_payload_counts_towards_the_limit_of_the_body():
    with pytest.raises(PayloadError, match=f"at most {BODY_LIMIT}"):
        received(event(text(bytes(BODY_LIMIT)), "application/octet-stream"))


@given(encoded=st.text() | st.binary().map(text), content_type=st.text())
def test_whatever_arrives_is_a_message_or_a_payload_error(encoded, content_type):
    try:
        received(event(encoded, content_type))
    except PayloadError:
        return
