"""What a store counts: states, latencies, periods."""

from __future__ import annotations

from datetime import timedelta

import attrs
from parts import (
    DELIVERED,
    FAILED,
    IN_FLIGHT,
    NOW,
    PENDING,
    Parts,
    completion,
    later,
    message,
    subscription,
)

from thorn_core.periods import Periods
from thorn_core.stores.sql import figures
from thorn_core.values import DeliveryState, Stats

ONE, TWO = subscription(1), subscription(2)


def stats(store: Parts, seconds: float, window: float = 60) -> Stats:
    return store.read(lambda s: figures.stats(s, later(seconds), timedelta(seconds=window)))


def test_stats_count_what_there_is_and_how_attempts_went(store):
    empty = stats(store, 0)
    assert (empty.messages, empty.due_since, empty.latency, empty.recipients) == (0, None, {}, {})
    store.run(lambda s: store.subscriptions.add(s, ONE))
    store.deliver(message(1), ONE, TWO)
    store.deliver(message(2, 20), ONE)
    store.publish(message(3, 60))
    first, second = store.claim(later(0))
    third, *_ = store.claim(later(30))
    store.record(
        completion(first, at=later(1), duration=0.25),
        completion(second, FAILED, status=500, at=later(2), duration=0.75),
        completion(third, PENDING, status=None, at=later(30), due_at=later(45)),
    )
    found = stats(store, 40)
    assert (found.subscriptions, found.messages, found.unrouted) == (1, 3, 1)
    assert found.deliveries == {
        PENDING: 1, IN_FLIGHT: 0, DELIVERED: 1, FAILED: 1, DeliveryState.CANCELLED: 0
    }  # fmt: skip
    assert (found.attempts, found.failed_attempts, found.window) == (3, 2, timedelta(seconds=60))
    assert found.latency == {50: 0.25, 95: 0.75, 99: 0.75}
    one, two = first.delivery.subscription_id, second.delivery.subscription_id
    assert found.recipients == {
        one: dict.fromkeys((50, 95, 99), 0.25),
        two: dict.fromkeys((50, 95, 99), 0.75),
    }
    assert found.due_since == later(60)
    assert stats(store, 50).due_since == later(45)
    assert stats(store, 3600).attempts == 0
    store.claim(later(45))
    assert stats(store, 50).deliveries[IN_FLIGHT] == 1
    # A lease that is over leaves its delivery due.
    assert stats(store, 50).due_since == later(60)
    assert stats(store, 200).due_since == later(45)


def test_the_busiest_recipient_comes_first(store):
    for n in range(3):
        store.deliver(message(n), TWO, *([ONE] if n else []))
    store.record(*(completion(claim) for claim in store.claim()))
    assert list(stats(store, 1).recipients) == [TWO.id, ONE.id]


def test_what_is_paused_waits_for_nobody(store):
    store.run(lambda s: store.subscriptions.add(s, ONE))
    store.deliver(message(1), ONE)
    assert stats(store, 1).due_since == NOW
    store.run(lambda s: store.subscriptions.set_paused(s, ONE.id, NOW, paused=True))
    assert stats(store, 1).due_since is None


def periods(store: Parts, **changes) -> list:
    asked = Periods(
        subscription_id=ONE.id, since=NOW, step=timedelta(seconds=60), number=2, limit=100
    )
    asked = attrs.evolve(asked, **changes)
    return store.read(lambda s: figures.periods(s, asked))


def test_periods_tell_how_one_subscriptions_deliveries_went(store):
    for n, seconds in enumerate((-0.001, 0, 59.999, 60, 90, 120)):
        store.deliver(message(n, seconds), ONE, TWO)
    claims = store.claim(later(600))
    mine = {c.delivery.id: c for c in claims if c.delivery.subscription_id == ONE.id}
    before, first, last, second, third, after = (mine[key] for key in sorted(mine))
    store.record(
        completion(before, at=later(-0.0005), duration=9),
        completion(first, at=later(0)),
        completion(last, PENDING, status=500, at=later(59.9), due_at=later(90)),
        completion(second, DeliveryState.CANCELLED, status=410, at=later(119), duration=0.5),
        completion(after, at=later(121), duration=9),
        *(completion(c, at=later(1), duration=9) for c in claims if c not in mine.values()),
    )
    one, two = periods(store)
    assert (one.at, two.at) == (NOW, later(60))
    assert one.deliveries == {DELIVERED: 1, PENDING: 1}
    assert two.deliveries == {DeliveryState.CANCELLED: 1, IN_FLIGHT: 1}
    assert one.latency == dict.fromkeys((50, 95, 99), 0.25)
    assert two.latency == dict.fromkeys((50, 95, 99), 0.5)
    assert third.delivery.id in mine
    nobody = periods(store, subscription_id="sub_nobody")
    assert [(dict(each.deliveries), each.latency) for each in nobody] == [({}, {})] * 2


def test_periods_are_counted_from_the_newest_deliveries_only(store):
    for n in range(1, 5):
        store.deliver(message(n, n), ONE)
    asked = {"step": timedelta(seconds=2), "number": 3}

    def found(limit: int) -> list[int]:
        return [sum(p.deliveries.values()) for p in periods(store, limit=limit, **asked)]

    assert found(3) == [0, 2, 1]
    assert found(4) == found(5) == [1, 2, 1]
