"""What reprs show, which are logged: no payload, no secret, no header, no credentials of a URL."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from thorn_core import (
    Attempt,
    Delivery,
    Message,
    Request,
    Response,
    Settings,
    Subscription,
    Thorn,
)
from thorn_core.api import ApiRequest, ApiResponse
from thorn_core.codecs import Envelope
from thorn_core.recipients import parse_url
from thorn_core.signatures import Signable
from thorn_core.testing.recipient import Received
from thorn_core.values import Claim, Completion, Outcome, Routing

NOW = datetime(2026, 3, 1, tzinfo=UTC)
URL = "https://e.com/hook?token=pa55"
HEADERS = {"X-To": "pa55"}
MESSAGE = Message(
    id="msg_1", event="a.b", data=b"pa55", at=NOW, ref=URL, headers=HEADERS, context=HEADERS
)
SUBSCRIPTION = Subscription(
    id="sub_1",
    events=("*",),
    url=URL,
    secrets=("pa55",),
    secret_expiry={"pa55": NOW},
    headers=HEADERS,
    created_at=NOW,
    updated_at=NOW,
)
DELIVERY = Delivery(
    id="dlv_1_1",
    message_id="msg_1",
    subscription_id="sub_1",
    event="a.b",
    due_at=NOW,
    created_at=NOW,
    target=SUBSCRIPTION,
)
ATTEMPT = Attempt(
    id="att_1", delivery_id="dlv_1_1", number=1, at=NOW, duration=0.1, headers=HEADERS, body=b"pa55"
)
CLAIM = Claim(delivery=DELIVERY, message=MESSAGE, subscription=SUBSCRIPTION, token="token_1")
VALUES = (
    MESSAGE,
    SUBSCRIPTION,
    DELIVERY,
    ATTEMPT,
    CLAIM,
    Routing(message=MESSAGE, deliveries=[DELIVERY]),
    Completion(claim=CLAIM, outcome=Outcome(state="pending"), attempt=ATTEMPT, at=NOW),
    Request(url=URL, headers=HEADERS, body=b"pa55"),
    Response(status=200, headers=HEADERS, body=b"pa55"),
    Signable(id="msg_1", timestamp=0, body=b"pa55"),
    Envelope(fields={"ref": "pa55"}, data=b"pa55"),
    parse_url(URL),
    ApiRequest(method="GET", path="/", query={"a": ["pa55"]}, headers=HEADERS, body=b"pa55"),
    ApiResponse(status=200, headers=HEADERS, body=b"pa55"),
    Received(method="POST", path="/hook?token=pa55", headers=HEADERS, body=b"pa55", at=NOW),
    Settings(subscribers={"*": {"url": URL, "secret": "pa55"}}),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_repr_shows_nothing_that_must_not_be_logged(value):
    assert "pa55" not in repr(value)
    assert "pa55" not in f"{value} {[value]!r}"


def test_a_repr_still_says_which_it_is():
    assert "'https://e.com/hook'" in repr(SUBSCRIPTION)
    assert "msg_1" in repr(MESSAGE)
    assert repr(Message(id="msg_1", event="a.b", data=b"", at=NOW)).count("ref=None") == 1


def test_an_app_shows_no_password_of_its_store():
    with Thorn(default=False) as app:
        assert repr(app) == "<Thorn MemoryStore inline>"


def test_values_are_whole_all_the_same():
    assert pickle.loads(pickle.dumps(SUBSCRIPTION)) == SUBSCRIPTION
