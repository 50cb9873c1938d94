"""The contract of stores: statistics and readiness."""

from __future__ import annotations

from datetime import timedelta

import attrs

from thorn_core.periods import Periods
from thorn_core.ports.store import Store
from thorn_core.testing.store_contract.steps import (
    DELIVERED,
    NOW,
    PENDING,
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import DeliveryState


class FigureContract(StoreSteps):
    """A store counts its contents and the results of attempts, and checks that it is ready."""

    def test_stats_count(self, store: Store) -> None:
        store.add_subscription(make_subscription())
        self.history(store)
        self.publish(store, make_message(3))
        stats = store.stats(now=later(1), window=timedelta(minutes=1))
        assert (stats.subscriptions, stats.messages, stats.unrouted) == (1, 3, 1)
        assert stats.deliveries[PENDING] == 3
        assert stats.deliveries[DELIVERED] == 1
        assert (stats.attempts, stats.latency) == (1, {50: 0.25, 95: 0.25, 99: 0.25})
        assert stats.recipients == {make_subscription(1).id: stats.latency}
        assert (stats.failed_attempts, stats.due_since) == (0, NOW)
        assert store.stats(now=later(3600), window=timedelta(minutes=1)).attempts == 0

    def test_stats_tell_failures_and_what_waits_the_longest(self, store: Store) -> None:
        window = timedelta(minutes=1)
        assert store.stats(now=NOW, window=window).due_since is None
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        failed = self.completion(claim, PENDING, status=500, due_at=later(30))
        store.record([failed])
        stats = store.stats(now=later(1), window=window)
        assert (stats.attempts, stats.failed_attempts, stats.due_since) == (1, 1, None)
        assert store.stats(now=later(90), window=window).due_since == later(30)
        self.publish(store, make_message(2, at=later(20)))
        assert store.stats(now=later(90), window=window).due_since == later(20)

    def test_periods_tell_how_one_subscriptions_deliveries_went(self, store: Store) -> None:
        mine, other = make_subscription(), make_subscription(2)
        for number, seconds in enumerate((-0.001, 0, 59.999, 60, 120), 1):
            self.deliver(store, make_message(number, at=later(seconds)), mine, other)
        claims = self.claim(store, now=later(600))
        mines = [c for c in claims if c.delivery.subscription_id == mine.id]
        before, first, last, second, after = sorted(mines, key=lambda c: c.delivery.id)
        store.record(
            [
                self.completion(before, at=later(0)),
                self.completion(first, at=later(0)),
                self.completion(last, PENDING, status=500, at=later(59.9), due_at=later(90)),
                self.completion(second, DeliveryState.CANCELLED, status=410, at=later(119)),
                self.completion(after, at=later(121)),
                *(self.completion(c, at=later(1)) for c in claims if c not in mines),
            ]
        )
        # Retried in the next period without a response, and once more after the last period.
        for status, seconds in ((None, 90), (500, 120)):
            (again,) = self.claim(store, now=later(600))
            slow = self.completion(again, PENDING, status=status, at=later(seconds), due_at=NOW)
            assert slow.attempt is not None
            slow = attrs.evolve(slow, attempt=attrs.evolve(slow.attempt, duration=15.0))
            store.record([slow])
        asked = Periods(
            subscription_id=mine.id, since=NOW, step=timedelta(seconds=60), number=2, limit=100
        )
        one, two = store.periods(asked)
        assert (one.at, two.at) == (NOW, later(60))
        assert {k: n for k, n in one.deliveries.items() if n} == {DELIVERED: 1, PENDING: 1}
        assert {k: n for k, n in two.deliveries.items() if n} == {DeliveryState.CANCELLED: 1}
        assert one.latency == two.latency == {50: 0.25, 95: 0.25, 99: 0.25}
        nobody = store.periods(attrs.evolve(asked, subscription_id="sub_nobody"))
        assert [(dict(each.deliveries), each.latency) for each in nobody] == [({}, {})] * 2

    def test_periods_are_counted_from_the_newest_deliveries_only(self, store: Store) -> None:
        mine = make_subscription()
        for number in range(1, 5):
            self.deliver(store, make_message(number, at=later(number)), mine)
        asked = Periods(
            subscription_id=mine.id, since=NOW, step=timedelta(seconds=2), number=3, limit=3
        )
        found = [sum(each.deliveries.values()) for each in store.periods(asked)]
        assert found == [0, 2, 1]
        enough = attrs.evolve(asked, limit=4)
        assert [sum(each.deliveries.values()) for each in store.periods(enough)] == [1, 2, 1]

    def test_a_store_at_work_is_ready(self, store: Store) -> None:
        store.check()
