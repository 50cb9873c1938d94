"""The contract of stores: completions of claims and their effect on recipients."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest

from thorn_core.delivery import make_unstored_delivery
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
from thorn_core.values import DeliveryState, Subscription


class RecordingContract(StoreSteps):
    """A store records attempts, states, pauses, and the effects on subscriptions."""

    def test_a_delivered_one_is_finished_with_its_attempt(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        completion = self.completion(claim, at=later(1))
        assert list(store.record([completion])) == []
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count, kept.finished_at) == (DELIVERED, 1, later(1))
        assert list(store.attempts([kept.id])) == [completion.attempt]
        assert not self.claim(store, now=later(1000))

    def test_an_attempt_comes_back_as_it_was(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        completion = self.completion(claim, PENDING, due_at=later(5))
        assert completion.attempt is not None
        full = attrs.evolve(
            completion.attempt,
            duration=1.5,
            status=None,
            headers={"content-type": "text/plain"},
            body=b"\x00\xff",
            error="no response in time",
            timed_out=True,
        )
        store.record([attrs.evolve(completion, attempt=full)])
        assert list(store.attempts([claim.delivery.id])) == [full]

    def test_a_retry_waits_until_it_is_due(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        store.record([self.completion(claim, PENDING, status=500, due_at=later(5), reason="500")])
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.due_at, kept.reason) == (PENDING, later(5), "500")
        assert (kept.attempt_count, kept.finished_at) == (1, None)
        assert not self.claim(store, now=later(4))
        (again,) = self.claim(store, now=later(5))
        assert again.delivery.attempt_count == 1

    @pytest.mark.parametrize("state", [DeliveryState.FAILED, DeliveryState.CANCELLED])
    def test_a_final_state_is_final(self, store: Store, state: DeliveryState) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        store.record([self.completion(claim, state, attempt=False, reason="why")])
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.reason, kept.attempt_count) == (state, "why", 0)
        assert not self.claim(store, now=later(1000))
        assert not store.attempts([kept.id])

    def test_a_late_completion_is_history_only(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (first,) = self.claim(store)
        (second,) = self.claim(store, now=later(60), token="two")
        store.record([self.completion(first, DeliveryState.FAILED, status=500, at=later(61))])
        kept = store.delivery(first.delivery.id)
        assert kept is not None
        assert kept.state is DeliveryState.IN_FLIGHT
        store.record([self.completion(second, at=later(62))])
        kept = store.delivery(first.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 2)
        assert len(store.attempts([kept.id])) == 2

    def test_a_subscription_that_asks_for_it_is_left_alone(self, store: Store) -> None:
        mine, other = make_subscription(1), make_subscription(2)
        self.deliver(store, make_message(1), mine)
        (claim,) = self.claim(store)
        pause: dict[str, Any] = {"due_at": later(5), "pause_until": later(30)}
        store.record([self.completion(claim, PENDING, status=429, **pause)])
        self.deliver(store, make_message(2), mine, other)
        claimed = self.claim(store, now=later(10))
        assert [claim.delivery.subscription_id for claim in claimed] == [other.id]
        assert not self.claim(store, now=later(29), message_ids=[make_message(2).id])
        assert len(self.claim(store, now=later(30))) == 2

    def test_a_pause_holds_for_one_subscription_of_a_host(self, store: Store) -> None:
        mine = make_subscription(1)
        others = make_subscription(2, url=mine.url)
        self.deliver(store, make_message(1), mine)
        (claim,) = self.claim(store)
        pause: dict[str, Any] = {"due_at": later(5), "pause_until": later(30)}
        store.record([self.completion(claim, PENDING, status=429, **pause)])
        self.deliver(store, make_message(2), mine, others)
        (claimed,) = self.claim(store, now=later(1))
        assert claimed.delivery.subscription_id == others.id

    def test_a_new_url_lifts_the_pause_that_the_old_one_asked_for(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(), subscription)
        (claim,) = self.claim(store)
        pause: dict[str, Any] = {"due_at": later(5), "pause_until": later(3000)}
        store.record([self.completion(claim, PENDING, status=429, **pause)])

        def describe(current: Subscription) -> Subscription:
            return attrs.evolve(current, description="the same URL", updated_at=later(6))

        store.change_subscription(subscription.id, describe)
        assert not self.claim(store, now=later(7))

        def move(current: Subscription) -> Subscription:
            return attrs.evolve(current, url="https://new.example.com/", updated_at=later(8))

        store.change_subscription(subscription.id, move)
        (again,) = self.claim(store, now=later(9))
        assert again.subscription is not None
        assert again.subscription.url == "https://new.example.com/"

    def test_of_two_pauses_the_later_holds(self, store: Store) -> None:
        for number in (1, 2):
            self.deliver(store, make_message(number), make_subscription())
        claims = self.claim(store)
        ends = (later(60), later(20))
        store.record(
            [
                self.completion(claim, PENDING, status=429, due_at=later(1), pause_until=end)
                for claim, end in zip(claims, ends, strict=True)
            ]
        )
        assert not self.claim(store, now=later(59))
        assert len(self.claim(store, now=later(60))) == 2

    def test_a_subscription_knows_since_when_it_fails(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)

        def record(number: int, status: int, at: datetime) -> datetime | None:
            self.deliver(store, make_message(number), subscription)
            (claim,) = self.claim(store, now=at)
            store.record([self.completion(claim, DELIVERED, status=status, at=at)])
            kept = store.subscription(subscription.id)
            assert kept is not None
            return kept.failing_since

        assert record(1, 500, later(1)) == later(1)
        assert record(2, 500, later(2)) == later(1)
        assert record(3, 200, later(3)) is None
        assert record(4, 200, later(4)) is None

    def test_a_streak_of_failures_is_counted_and_disables(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        limit, changed = timedelta(hours=9), []
        for hour in range(11):
            at = later(3600 * hour)
            self.deliver(store, make_message(hour), subscription)
            (claim,) = self.claim(store, now=at, message_ids=[make_message(hour).id])
            failed = self.completion(
                claim, DeliveryState.FAILED, status=500, at=at, disable_after=limit
            )
            changed.append([(s.enabled, s.failures) for s in store.record([failed])])
        assert changed[5] == [(True, 6)]
        assert changed[9] == [(False, 10)]
        assert [number for number, some in enumerate(changed) if some] == [5, 9]
        kept = store.subscription(subscription.id)
        assert kept is not None
        assert (kept.failing_since, kept.failures) == (NOW, 11)
        assert (kept.last_failure_at, kept.updated_at) == (later(36_000), later(32_400))
        assert "10 attempts" in (kept.disabled_reason or "")
        assert not self.matched(store, "article.created")

    def test_a_subscription_is_disabled_once(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        for number in (1, 2):
            self.deliver(store, make_message(number), subscription)
        completions = [
            self.completion(claim, DeliveryState.CANCELLED, status=410, disable="gone")
            for claim in self.claim(store)
        ]
        (disabled,) = store.record(completions)
        assert store.subscription(subscription.id) == disabled
        assert (disabled.enabled, disabled.disabled_reason) == (False, "gone")
        assert not self.matched(store, "article.created")

    def test_an_unstored_subscription_is_not_disabled(self, store: Store) -> None:
        message = make_message()
        self.publish(store, message)
        self.route(store, message, [make_unstored_delivery(message, make_subscription(), NOW)])
        (claim,) = self.claim(store)
        completion = self.completion(claim, DeliveryState.CANCELLED, status=410, disable="gone")
        assert not store.record([completion])
