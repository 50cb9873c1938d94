"""Deliveries that are held, cancelled, made later or erased, as an app does it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from api_client import LOCAL

from thorn_core import ConfigurationError, NotFoundError, Thorn, hookimpl, signals
from thorn_core.cli.group import run_for
from thorn_core.testing import LocalRecipient

URL = "https://example.com/hook"


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def app():
    with Thorn(settings=LOCAL, dispatcher="outbox") as app:
        yield app


def test_a_subscription_may_begin_paused(app, recipient):
    subscription = app.subscribe("*", recipient.url, paused=True)
    receipt = app.send("a.b")
    app.worker().drain()
    (delivery,) = receipt.deliveries
    assert (delivery.held, delivery.shown_state) == (True, "held")
    assert recipient.received == ()
    app.resume(subscription.id)
    app.worker().drain()
    assert receipt
    with pytest.raises(ConfigurationError, match="True or False"):
        app.subscribe("*", recipient.url, paused="no")
    with pytest.raises(NotFoundError):
        app.pause("sub_none")


def test_what_waits_is_cancelled_and_told(app):
    subscription = app.subscribe("*", URL, paused=True)
    receipts = [app.send("a.b"), app.send("a.c"), app.send("z.z")]
    app.worker().drain()
    told = []

    def listen(sender, *, delivery, attempt):
        told.append((delivery.reason, attempt))

    with signals.delivery_cancelled.connected_to(listen, app):
        assert app.cancel(event="a.*", reason="sent by mistake") == 2
    assert told == [("sent by mistake", None)] * 2
    states = [receipt.deliveries[0].shown_state for receipt in receipts]
    assert states == ["cancelled", "cancelled", "held"]
    (delivery,) = receipts[2].deliveries
    assert app.cancel(delivery.id) == 1
    assert app.cancel(subscription_id=subscription.id) == 0
    with pytest.raises(ConfigurationError, match="needs a filter"):
        app.cancel()
    with pytest.raises(ConfigurationError, match="1 to 500"):
        app.cancel(event="*", reason="")


def test_unsubscribing_cancels_what_waits(app, caplog):
    subscription = app.subscribe("*", URL + "?key=1", paused=True)
    receipts = [app.send("a.b") for _ in range(3)]
    app.worker().drain()
    assert app.unsubscribe(subscription.id)
    deliveries = [receipt.deliveries[0] for receipt in receipts]
    assert [d.reason for d in deliveries] == ["the subscription was removed"] * 3
    assert all(d.finished_at is not None for d in deliveries)
    assert caplog.text.count("a.b to https://example.com) was cancelled") == 3
    assert not app.unsubscribe(subscription.id)


def test_a_sender_is_erased(app, recipient):
    app.subscribe("*", recipient.url)
    ada = [app.send("a.b", {"name": "Ada"}, sender="ada") for _ in range(3)]
    bob = app.send("a.b", {"name": "Bob"}, sender="bob")
    app.worker().drain()
    waiting = app.send("a.b", {"name": "Ada"}, sender="ada")
    counts = []
    assert app.erase("ada", batch=3, progress=counts.append) == 4
    assert counts == [3, 4]
    for receipt in (*ada, waiting):
        assert app.message(receipt.message.id) is None
        assert not receipt.deliveries
    assert bob
    for nobody in (None, ""):
        with pytest.raises(ConfigurationError):
            app.erase(nobody)
    with pytest.raises(ConfigurationError, match="10000"):
        app.erase("bob", batch=0)


class Choosy:
    """A plugin that leaves out odd numbers."""

    @hookimpl
    def thorn_accepts(self, message, subscription):
        return message.payload % 2 == 0


def test_what_is_missing_is_delivered_if_plugins_accept_it(recipient):
    with Thorn(settings=LOCAL, dispatcher="outbox", plugins=[Choosy()]) as app:
        before = app.clock()
        for number in range(6):
            app.send("a.b", number)
        app.send("z.b", 8)
        app.worker().drain()
        subscription = app.subscribe("*", recipient.url)
        which = {"subscription_id": subscription.id, "since": before - timedelta(seconds=1)}
        assert app.replay(**which) == 0
        assert app.replay(**which, event="a.*", missing=True) == 3
        app.worker().drain()
        assert sorted(r.json["data"] for r in recipient.received) == [0, 2, 4]
        assert app.replay(**which, missing=True) == 1
        for wrong in (
            {"subscription_id": subscription.id},
            {"since": before},
            {**which, "message_id": "msg_1"},
        ):
            with pytest.raises(ConfigurationError, match="missing=True needs"):
                app.replay(**wrong, missing=True)
        with pytest.raises(NotFoundError):
            app.replay(subscription_id="sub_none", since=before, missing=True)


def test_missing_and_failed_deliveries_are_counted_together(app, recipient):
    since = app.clock() - timedelta(seconds=1)
    app.send("a.b", 1)
    app.worker().drain()
    subscription = app.subscribe("*", URL, paused=True)
    app.send("a.b", 2)
    app.worker().drain()
    app.cancel(subscription_id=subscription.id)
    counts = []
    assert (
        app.replay(
            subscription_id=subscription.id, since=since, missing=True, progress=counts.append
        )
        == 2
    )
    assert counts == [1, 2]


def command(app, capfd, name, *arguments, status=0):
    assert (run_for(lambda: app, name, arguments) or 0) == status
    return capfd.readouterr().out


def test_commands_pause_resume_cancel_and_erase(app, capfd):
    subscription = app.subscribe("*", URL)
    assert "held until" in command(app, capfd, "subscriptions", "pause", subscription.id)
    app.send("a.b", sender="ada")
    app.worker().drain()
    (listed,) = map(json.loads, command(app, capfd, "subscriptions", "--json").splitlines())
    assert listed["paused"] is True
    assert "paused" in command(app, capfd, "subscriptions")
    (held,) = map(json.loads, command(app, capfd, "deliveries", "--json").splitlines())
    assert (held["state"], held["origin"]) == ("held", "https://example.com")
    shown = command(app, capfd, "deliveries")
    assert "when resumed" in shown
    assert "https://example.com" in shown
    assert "until its subscription is resumed" in command(app, capfd, "attempts", held["id"])
    told = command(app, capfd, "cancel", "--subscription", subscription.id, "--reason", "enough")
    assert told == "Cancelled 1 delivery.\n"
    assert app.delivery(held["id"]).reason == "enough"
    told = command(app, capfd, "cancel", held["id"], "--json", status=1)
    assert json.loads(told) == {"cancelled": 0}
    assert command(app, capfd, "subscriptions", "resume", subscription.id) == "Resumed.\n"
    assert command(app, capfd, "erase", "ada", "--yes") == "Deleted 1 message.\n"
    assert json.loads(command(app, capfd, "erase", "ada", "--yes", "--json")) == {"erased": 0}


def test_a_command_delivers_what_is_missing(app, capfd):
    app.send("a.b")
    app.worker().drain()
    subscription = app.subscribe("*", URL, paused=True)
    which = ("--subscription", subscription.id, "--since", "1h")
    assert command(app, capfd, "replay", *which, status=1) == "Replayed 0 deliveries.\n"
    assert command(app, capfd, "replay", *which, "--missing") == "Replayed 1 delivery.\n"


def test_figures_are_told_by_subscription(app, recipient, capfd):
    subscription = app.subscribe("*", recipient.url)
    app.send("a.b")
    app.worker().drain()
    assert set(app.stats().recipients) == {subscription.id}
    shown = command(app, capfd, "stats")
    assert recipient.url.rstrip("/") in shown.replace("\n", "")
    app.unsubscribe(subscription.id)
    assert subscription.id in command(app, capfd, "stats").replace("\n", "")
