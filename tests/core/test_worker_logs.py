"""What a worker's log says of what failed."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from thorn_core import Settings, Thorn, TransportError
from thorn_core.cli.logs import JsonFormatter
from thorn_core.recipients import origin_of
from thorn_core.testing import LocalRecipient

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


class Clock:
    """The time, moved by hand."""

    def __init__(self):
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now

    def forward(self, **more):
        self.now += timedelta(**more)


@contextmanager
def working(**options):
    """An app on its own time, and what makes its worker try what is due."""
    clock = Clock()
    settings = options.pop("settings", LOCAL)
    with Thorn(
        dispatcher="outbox", settings=settings, clock=clock, default=False, **options
    ) as app:

        def drain(**more):
            app.worker().drain()
            clock.forward(**more)

        yield app, drain


@pytest.fixture
def told(caplog):
    """The records of the worker's log, as `thorn worker` writes them."""
    caplog.set_level(logging.INFO)

    def records():
        mine = [r for r in caplog.records if r.name == "thorn_core.worker"]
        return [json.loads(JsonFormatter().format(record)) for record in mine]

    return records


def test_each_failed_attempt_is_one_record(told):
    with LocalRecipient() as recipient, working() as (app, drain):
        recipient.answer(status=500)
        subscription = app.subscribe("*", recipient.url)
        receipt = app.send("a.b", {"secret": "of the payload"})
        for _ in range(2):
            drain(minutes=10)
        (delivery,) = receipt.deliveries
        first, second = told()
        retry_at = first.pop("retry_at")
        assert first == {
            "time": first["time"],
            "level": "warning",
            "logger": "thorn_core.worker",
            "message": (
                f"attempt 1 of delivery {delivery.id} (a.b to {origin_of(recipient.url)}) failed:"
                f" status 500; next attempt at {retry_at}"
            ),
            "message_id": receipt.message.id,
            "delivery_id": delivery.id,
            "subscription_id": subscription.id,
            "event": "a.b",
            "origin": origin_of(recipient.url),
            "attempt": 1,
            "status": 500,
            "reason": "status 500",
            "outcome": "pending",
        }
        assert "2026-03-01T12:00:04Z" <= retry_at <= "2026-03-01T12:00:06Z"
        assert second["attempt"] == 2


def test_a_reason_that_is_a_sentence_gets_no_second_punctuation_mark(told):
    with working(settings=LOCAL.evolve(retry=False)) as (app, drain):
        app.subscribe("*", "https://nothing.invalid/")
        app.send("a.b", 1)
        drain()
        (record,) = told()
        assert record["message"].endswith("and its DNS; no attempts are left")
        assert record["reason"].endswith("and its DNS.")


def test_the_last_attempt_says_so(told):
    with LocalRecipient() as recipient, working(settings=LOCAL.evolve(retry=False)) as (app, drain):
        recipient.answer(status=404)
        app.subscribe("*", recipient.url)
        app.send("a.b", 1)
        drain()
        (record,) = told()
        assert record["message"].endswith("failed: status 404; no attempts are left")
        assert (record["outcome"], record["retry_at"]) == ("failed", None)


def test_success_is_no_record(told):
    with LocalRecipient() as recipient, working() as (app, drain):
        app.subscribe("*", recipient.url)
        app.send("a.b", 1)
        drain()
        assert told() == []


def test_a_cancelled_delivery_is_one_record(told):
    with LocalRecipient() as recipient, working() as (app, drain):
        recipient.answer(status=500)
        subscription = app.subscribe("*", recipient.url + "?token=abc")
        receipt = app.send("a.b", 1)
        drain(minutes=1)
        app.unsubscribe(subscription.id)
        drain()
        (delivery,) = receipt.deliveries
        _, record = told()
        assert record["message"] == (
            f"delivery {delivery.id} (a.b to {origin_of(recipient.url)}) was cancelled:"
            " the subscription was removed"
        )
        assert (record["subscription_id"], record["status"]) == (subscription.id, None)
        assert "abc" not in str(told())


def test_a_recipient_that_is_gone_is_two_records(told):
    with LocalRecipient() as recipient, working() as (app, drain):
        recipient.answer(status=410)
        subscription = app.subscribe("*", recipient.url, owner="42")
        app.send("a.b", 1)
        drain()
        attempt, disabled = told()
        assert attempt["message"].endswith("failed: status 410; it will not be retried")
        assert disabled["message"] == (
            f"subscription {subscription.id} of owner 42 was disabled: the recipient answered 410"
            " Gone"
        )
        assert disabled["subscription_id"] == subscription.id


def test_a_subscription_that_fails_for_long_is_warned_of_and_disabled(told):
    settings = LOCAL.evolve(disable_after=timedelta(hours=10), retry=False)
    with (
        LocalRecipient() as recipient,
        LocalRecipient() as owners,
        working(settings=settings) as (app, drain),
    ):
        recipient.answer(status=500)
        subscription = app.subscribe("a.*", recipient.url, owner="42")
        app.subscribe("thorn.*", owners.url, owner="42")
        for number in range(12):
            app.send("a.b", number)
            drain(hours=1)
        drain()
        records = [r for r in told() if "attempt" not in r]
        assert [r["message"].partition(" of owner 42 ")[2] for r in records] == [
            f"has failed {failures} times in a row; it will be disabled at 2026-03-01T22:00:00Z"
            " unless an attempt succeeds"
            for failures in (6, 10)
        ] + ["was disabled: all 11 attempts have failed since 2026-03-01T12:00:00Z"]
        assert {r["subscription_id"] for r in records} == {subscription.id}
        assert [r.json["event"].rpartition(".")[2] for r in owners.received] == [
            "failing", "failing", "disabled",
        ]  # fmt: skip
        assert owners.received[0].json["data"]["disabled_at"] == "2026-03-01T22:00:00Z"


def test_what_a_recipient_answers_cannot_forge_records(told):
    class Transport:
        async def send(self, request):
            raise TransportError("no HTTP: \x1b[2J\r\n2026-03-01 ERROR all is lost " + "x" * 900)

        async def close(self):
            pass

    with working(transport=Transport) as (app, drain):
        app.subscribe("*", "http://127.0.0.1:1/")
        app.send("a.b", 1)
        drain()
        (record,) = told()
        assert record["message"].isprintable()
        assert len(record["message"]) < 600
