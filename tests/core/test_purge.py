"""Purging and replaying, as a program does it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from thorn_core import ConfigurationError, InvalidNameError, Settings, Thorn
from thorn_core.testing import LocalRecipient


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def app(recipient):
    settings = Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536), retry=False
    )
    with Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        yield app


def test_nothing_is_purged_without_an_age(app):
    app.send("a.b")
    with pytest.raises(TypeError, match="until"):
        app.purge()
    with pytest.raises(ConfigurationError, match=r"needs an age limit: until=now - timedelta"):
        app.purge(until=None)
    assert len(list(app.deliveries())) == 1


@pytest.mark.parametrize(
    ("criteria", "error", "message"),
    [
        ({"until": datetime(2026, 1, 1)}, ConfigurationError, "no time zone"),
        ({"until": timedelta(days=30)}, ConfigurationError, "needs an age limit"),
        ({"state": "pending"}, ConfigurationError, "deliveries are never purged"),
        ({"state": ["in_flight", "delivered"]}, ConfigurationError, "deliveries are never purged"),
        ({"state": "lost"}, ConfigurationError, "states are pending"),
        ({"event": "a..b"}, InvalidNameError, "empty word"),
        ({"batch": 0}, ConfigurationError, "use 1 to 10000"),
        ({"batch": 10_001}, ConfigurationError, "use 1 to 10000"),
    ],
)
def test_a_criterion_that_is_none_is_told(app, criteria, error, message):
    app.send("a.b")
    with pytest.raises(error, match=message):
        app.purge(**{"until": app.clock(), **criteria})
    assert len(list(app.deliveries())) == 1


def test_only_what_is_old_enough_and_finished_goes(app, recipient):
    old = app.send("a.b").message
    until = app.clock()
    young = app.send("a.b").message
    with app.dispatching_by(app.dispatcher("outbox")):
        waiting = app.send("a.b").message
    assert app.purge(until=until) == 1
    assert app.purge(until=until) == 0
    assert [app.message(m.id) is None for m in (old, young, waiting)] == [True, False, False]
    assert app.purge(until=app.clock() + timedelta(days=1)) == 1
    assert app.message(waiting.id) is not None


def test_messages_that_reached_nobody_go_unless_other_criteria_are_given(app):
    for subscription in app.subscriptions():
        app.unsubscribe(subscription.id)
    message = app.send("a.b").message
    app.purge(until=app.clock(), event="a.*")
    assert app.message(message.id) is not None
    app.purge(until=app.clock())
    assert app.message(message.id) is None


def test_a_replay_that_fails_again_ends(app, recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.paging.PAGE", 2)
    recipient.answer(status=500)
    for _ in range(5):
        app.send("a.b")
    told = []
    assert app.replay(state="failed", progress=told.append) == 5
    assert told == [2, 4, 5]
    assert len(recipient.received) == 10


def test_a_replay_of_many_ids_goes_by_the_page(app, recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.paging.PAGE", 2)
    ids = [app.send("a.b").deliveries[0].id for _ in range(3)]
    told = []
    assert app.replay(iter([*ids, "dlv_x"]), progress=told.append) == 3
    assert told == [2, 3]
    assert app.replay(ids, state="failed") == 0


def test_a_dispatcher_may_look_at_what_is_replayed(app):
    seen = []

    class Looking:
        publishes = True

        def dispatch(self, messages):
            seen.append(([m.event for m in messages], len(messages), messages[:1][0].event))

        def close(self):
            pass

    app.send("a.b")
    app.send("a.c")
    with app.dispatching_by(Looking()):
        assert app.replay(state="delivered") == 2
    assert seen == [(["a.b", "a.c"], 2, "a.b")]
