"""First attempts are made from memory; only slow ones get rows before they end."""

from __future__ import annotations

import threading

import attrs
import pytest

from thorn_core import Event, RetryPolicy, Settings, StoreDataError, Thorn
from thorn_core.delivery import make_delivery
from thorn_core.stores.sql import SqlStore
from thorn_core.stores.sql.sqlite import SqliteExecutor
from thorn_core.testing import LocalRecipient
from thorn_core.worker.lane import Lane, Share
from thorn_core.worker.load import Load

WAIT = 20
LOCAL = {"allowed_networks": ["127.0.0.0/8"], "allowed_ports": range(1, 65536)}


class Watched(SqlStore):
    """A store that counts its calls, and fails or waits when a test asks for it."""

    def __init__(self, path):
        super().__init__(SqliteExecutor(f"sqlite:///{path}"))
        self.stored = []
        self.claimed = 0
        self.may_record = threading.Event()
        self.may_record.set()
        self.refused = b""

    def route(self, routings, *, leased=None):
        self.stored += [(d.id, leased is not None) for r in routings for d in r.deliveries]
        super().route(routings, leased=leased)

    def claim(self, **arguments):
        claims = super().claim(**arguments)
        self.claimed += len(claims)
        return claims

    def record(self, completions, **routed):
        assert self.may_record.wait(WAIT)
        bodies = [c.attempt.body for c in completions if c.attempt is not None]
        if self.refused and self.refused in bodies:
            raise StoreDataError("the value is too large")
        return super().record(completions, **routed)


@pytest.fixture
def store(tmp_path):
    return Watched(tmp_path / "thorn.db")


@pytest.fixture
def make(store):
    apps = []

    def make(dispatcher="outbox", **changes):
        settings = Settings(**{**LOCAL, "poll_interval": 0.05, "grace_period": 0, **changes})
        apps.append(Thorn(store=store, dispatcher=dispatcher, settings=settings))
        return apps[-1]

    yield make
    store.may_record.set()
    for app in apps:
        app.close()


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def hanging():
    with LocalRecipient() as recipient:
        recipient.hang()
        yield recipient


def send(app, number):
    event = Event("order.paid", app=app)
    return [event.send({"number": n}).message.id for n in range(number)]


def states(app):
    return {str(state): n for state, n in app.stats().deliveries.items() if n}


def test_first_attempts_leave_the_queue_alone(make, store, recipient):
    app = make()
    app.subscribe("order.*", recipient.url)
    app.subscribe("order.paid", recipient.url)
    send(app, 300)
    assert app.worker().drain() == 600
    assert (states(app), store.claimed, store.stored) == ({"delivered": 600}, 0, [])
    assert all(app.store.routed(d.message_id) for d in app.deliveries())
    assert {d.attempt_count for d in app.deliveries()} == {1}


@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_dispatchers_in_the_process_attempt_directly(make, store, recipient, dispatcher):
    app = make(dispatcher)
    app.subscribe("order.*", recipient.url)
    receipt = Event("order.paid", app=app).send({})
    assert receipt.wait(WAIT)
    assert (states(app), store.claimed, store.stored) == ({"delivered": 1}, 0, [])


def test_failed_first_attempts_are_retried(make, recipient):
    app = make(retry_policy=RetryPolicy((0.05, 0.05)))
    app.subscribe("order.*", recipient.url)
    recipient.answer(status=500, times=1)
    send(app, 1)
    worker = app.worker()
    assert worker.drain() == 1
    (delivery,) = app.deliveries()
    assert (str(delivery.state), delivery.reason) == ("pending", "status 500")
    assert app.wait_until(lambda: worker.drain() and states(app) == {"delivered": 1}, WAIT)
    (delivery,) = app.deliveries()
    assert delivery.attempt_count == 2


def test_a_slow_request_is_seen_in_flight_and_recorded_once(make, store, recipient):
    app = make("background")
    recipient.answer(delay=2.5)
    app.subscribe("order.*", recipient.url)
    receipt = Event("order.paid", app=app).send({})
    assert app.wait_until(lambda: states(app) == {"in_flight": 1}, WAIT)
    assert app.store.routed(receipt.message.id)
    assert receipt.wait(WAIT)
    assert len(recipient.received) == 1
    assert [leased for _, leased in store.stored] == [True]
    (delivery,) = receipt.deliveries
    assert (str(delivery.state), delivery.attempt_count) == ("delivered", 1)


def test_deliveries_without_a_slot_wait_in_the_store(make, store, hanging):
    app = make("background", recipient_concurrency=2)
    app.subscribe("order.*", hanging.url)
    send(app, 8)
    # Two are in flight, and the worker has claimed two ahead.
    assert app.wait_until(lambda: states(app) == {"in_flight": 4, "pending": 4}, WAIT)
    assert sorted(leased for _, leased in store.stored) == [False] * 6 + [True] * 2
    assert len(hanging.received) == 2


def test_messages_that_a_caller_waits_for_keep_their_place(make, store, recipient):
    app = make(recipient_concurrency=1)
    recipient.answer(delay=0.7)
    app.subscribe("order.*", recipient.url)
    ids = send(app, 3)
    assert app.submit(app.engine.adrain(ids)).result(WAIT) == 3
    assert states(app) == {"delivered": 3}
    assert len(recipient.received) == 3


def test_a_stop_returns_what_has_not_ended(make, hanging):
    app = make("background", recipient_concurrency=1)
    app.subscribe("order.*", hanging.url)
    send(app, 3)
    hanging.wait_for(1, WAIT)
    app.close()
    hanging.answer()
    with Thorn(store=app.store, dispatcher="outbox", settings=app.settings) as again:
        # No lease is left, of a message or of a delivery.
        assert again.worker().drain() == 3
        assert states(again) == {"delivered": 3}


def test_no_more_attempts_are_unrecorded_than_the_setting_allows(make, store, recipient):
    app = make("background", unrecorded=5, recipient_concurrency=50)
    app.subscribe("order.*", recipient.url)
    store.may_record.clear()
    send(app, 100)
    recipient.wait_for(5, WAIT)
    # The worker goes on with its own work, and makes no further first attempt.
    assert not app.wait_until(lambda: len(recipient.received) > 5, 1.0)
    store.may_record.set()
    recipient.wait_for(100, WAIT)
    assert app.wait_until(lambda: states(app) == {"delivered": 100}, WAIT)


def test_one_unrecorded_attempt_at_a_time_is_enough(make, recipient):
    app = make(unrecorded=1)
    app.subscribe("order.*", recipient.url)
    send(app, 20)
    assert app.worker().drain() == 20
    assert states(app) == {"delivered": 20}


def test_paused_limited_and_backlogged_subscriptions(make, store, recipient):
    app = make()
    paused = app.subscribe("order.*", recipient.url, paused=True)
    limited = app.subscribe("order.*", recipient.url, rate_limit=100)
    free = app.subscribe("order.*", recipient.url)
    (message_id,) = send(app, 1)
    app.worker().drain()
    found = {d.subscription_id: str(d.state) for d in app.deliveries()}
    assert found == {paused.id: "pending", limited.id: "delivered", free.id: "delivered"}
    assert len(store.stored) == 2
    assert app.store.routed(message_id)


def test_a_subscription_with_a_backlog_gets_half_its_slots_for_new_messages(make, store, recipient):
    app = make(recipient_concurrency=8)
    subscription = app.subscribe("order.*", recipient.url, paused=True)
    send(app, 30)
    app.worker().drain()
    app.resume(subscription.id)
    del store.stored[:]
    send(app, 20)
    assert app.worker().drain() == 50
    # Four of the new ones were attempted directly.
    assert len(store.stored) == 16
    assert states(app) == {"delivered": 50}


def test_a_response_that_cannot_be_stored_costs_only_itself(make, store, recipient, caplog):
    app = make()
    app.subscribe("order.*", recipient.url)
    recipient.answer(body=b"refused", times=1)
    store.refused = b"refused"
    send(app, 20)
    assert app.worker().drain() == 20
    assert states(app) == {"delivered": 20}
    ids = [d.id for d in app.deliveries()]
    assert sum(a.body == b"" and not a.headers for a in app.store.attempts(ids)) == 1
    assert "can't be stored and is left out" in caplog.text


def test_a_message_whose_lease_was_lost_goes_the_ordinary_way(make, store, recipient):
    app = make()
    app.subscribe("order.*", recipient.url)
    (message_id,) = send(app, 1)
    now = app.clock()
    app.store.claim_messages(now=now, lease=app.clock() - now, limit=1, token="dead")
    assert app.worker().drain() == 1
    assert (len(store.stored), store.claimed) == (1, 1)
    assert app.store.routed(message_id)


def test_a_share_is_limited_in_total_and_per_recipient(make):
    app = make()
    subscriptions = [app.subscribe("order.*", f"https://127.0.0.1:{n}/") for n in (1, 2)]
    message = Event("order.paid", app=app).send({}).message
    deliveries = [
        attrs.evolve(d, id=f"{d.id}{n}")
        for d in (make_delivery(message, s, message.at) for s in subscriptions)
        for n in range(3)
    ]
    by_id = {each.id: each for each in subscriptions}
    first, second = by_id
    share = Share(room=3, per_recipient=2, beside=1, busy={second: 1})
    left = share.choose(message, deliveries, by_id, {first: False, second: False})
    assert [d.subscription_id for _, d, _ in share.chosen] == [first, first, second]
    assert len(left) == 3
    share = Share(room=10, per_recipient=2, beside=1, busy={})
    share.choose(message, deliveries, by_id, {first: True})
    assert [d.subscription_id for _, d, _ in share.chosen] == [first]


def test_shares_in_use_count(make):
    settings = Settings(unrecorded=10)
    lane = Lane(Load(settings, 0), settings)
    with lane.sharing(5, named=True, at_once=True) as one:
        assert one.room == 10
        with lane.sharing(5, named=True, at_once=True) as two:
            assert two.room == 0
    with lane.sharing(5, named=True, at_once=False) as share:
        assert share.room == 5
    assert lane.room == 10


def test_a_short_lease_shortens_the_time_without_a_row(make, store, recipient):
    app = make("background", lease=1, event_timeout=0.9)
    recipient.answer(delay=0.6)
    app.subscribe("order.*", recipient.url)
    receipt = Event("order.paid", app=app).send({})
    assert receipt.wait(WAIT)
    assert [leased for _, leased in store.stored] == [True]
    assert len(recipient.received) == 1
