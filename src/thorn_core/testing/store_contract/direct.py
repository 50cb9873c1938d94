"""The contract of stores: direct claims, whose deliveries have no rows before their completion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from thorn_core.delivery import make_delivery, make_unstored_delivery
from thorn_core.ports.store import Store
from thorn_core.testing.store_contract.steps import (
    DELIVERED,
    LEASE,
    NOW,
    PENDING,
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import Claim, DeliveryState, Message, Routing, Subscription

MINE = "mine"


class DirectContract(StoreSteps):
    """A store inserts the deliveries of direct claims in their final form, each once."""

    @pytest.fixture
    def direct(self, store: Store) -> Store:
        """Return the store, if it supports direct claims."""
        if not store.ready([make_subscription().id], now=NOW):
            pytest.skip("the store takes no direct claims")
        return store

    def lease(self, store: Store, message: Message) -> list[Message]:
        """Publish a message and lease it."""
        self.publish(store, message)
        return list(store.claim_messages(now=NOW, lease=LEASE, limit=100, token=MINE))

    def begin(self, store: Store, message: Message, subscription: Subscription) -> Claim:
        """Return a direct claim."""
        stored = store.subscription(subscription.id) is not None
        make = make_delivery if stored else make_unstored_delivery
        delivery = attrs.evolve(
            make(message, subscription, message.at), state=DeliveryState.IN_FLIGHT
        )
        return Claim(
            delivery=delivery,
            message=message,
            subscription=subscription,
            token=MINE,
            direct=True,
        )

    def start(self, store: Store, number: int = 1, **changes: Any) -> Claim:
        """Subscribe, publish and lease a message, and return its direct claim."""
        subscription = make_subscription(number, **changes)
        store.add_subscription(subscription)
        (message,) = self.lease(store, make_message(number))
        return self.begin(store, message, subscription)

    # -- recipients

    def test_recipients_are_ready_unless_paused(self, direct: Store) -> None:
        free, paused, blocked, busy = (make_subscription(number) for number in (1, 2, 3, 4))
        for each in (free, paused, blocked, busy):
            direct.add_subscription(each)
        direct.pause(paused.id, now=NOW)
        self.deliver(direct, make_message(1), blocked)
        (claim,) = self.claim(direct)
        asked: dict[str, Any] = {"due_at": later(5), "pause_until": later(30)}
        direct.record([self.completion(claim, PENDING, status=429, **asked)])
        self.deliver(direct, make_message(2), busy)
        ids = [each.id for each in (free, paused, blocked, busy)]
        assert direct.ready(ids, now=NOW) == {free.id: False, busy.id: True}
        direct.resume(paused.id, now=later(1))
        assert set(direct.ready(ids, now=later(30))) == set(ids)

    def test_leased_and_later_deliveries_leave_a_recipient_ready(self, direct: Store) -> None:
        subscription = make_subscription()
        self.deliver(direct, make_message(), subscription)
        (claim,) = self.claim(direct)
        assert direct.ready([subscription.id], now=later(1)) == {subscription.id: False}
        direct.record([self.completion(claim, PENDING, status=500, due_at=later(60))])
        assert direct.ready([subscription.id], now=later(59)) == {subscription.id: False}
        assert direct.ready([subscription.id], now=later(60)) == {subscription.id: True}

    # -- completions

    def test_a_first_attempt_is_inserted_with_its_delivery(self, direct: Store) -> None:
        claim = self.start(direct)
        assert direct.delivery(claim.delivery.id) is None
        completion = self.completion(claim, at=later(1))
        assert not direct.record([completion], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count, kept.finished_at) == (DELIVERED, 1, later(1))
        assert (kept.created_at, kept.event) == (NOW, "article.created")
        assert list(direct.attempts([kept.id])) == [completion.attempt]
        assert direct.routed(claim.message.id)
        assert not self.claim(direct, now=later(1000))

    def test_a_failed_first_attempt_is_retried(self, direct: Store) -> None:
        claim = self.start(direct)
        failed = self.completion(claim, PENDING, status=500, due_at=later(5), reason="status 500")
        direct.record([failed], routed=[claim.message.id])
        assert not self.claim(direct, now=later(4))
        (again,) = self.claim(direct, now=later(5))
        assert (again.delivery.attempt_count, again.delivery.attempts_before) == (1, 0)
        assert again.delivery.reason == "status 500"
        direct.record([self.completion(again, at=later(6))])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 2)
        assert len(direct.attempts([kept.id])) == 2

    def test_a_pause_that_a_recipient_asks_for_holds(self, direct: Store) -> None:
        claim = self.start(direct)
        asked: dict[str, Any] = {"due_at": later(5), "pause_until": later(30)}
        direct.record(
            [self.completion(claim, PENDING, status=429, **asked)], routed=[claim.message.id]
        )
        assert not direct.ready([claim.delivery.subscription_id], now=later(29))
        assert not self.claim(direct, now=later(29))
        assert len(self.claim(direct, now=later(30))) == 1

    def test_a_cancelled_one_has_no_attempt(self, direct: Store) -> None:
        claim = self.start(direct)
        cancelled = self.completion(claim, DeliveryState.CANCELLED, attempt=False, reason="why")
        direct.record([cancelled], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.reason, kept.attempt_count) == (cancelled.outcome.state, "why", 0)

    def test_a_subscriber_outside_the_store_comes_with_its_delivery(self, direct: Store) -> None:
        (message,) = self.lease(direct, make_message())
        claim = self.begin(direct, message, make_subscription())
        direct.record(
            [self.completion(claim, PENDING, status=500, due_at=later(1))], routed=[message.id]
        )
        (again,) = self.claim(direct, now=later(1))
        assert again.subscription == make_subscription()

    def test_a_recipient_that_is_gone_is_disabled_once(self, direct: Store) -> None:
        claim = self.start(direct)
        gone = self.completion(claim, DeliveryState.CANCELLED, status=410, disable="gone")
        (disabled,) = direct.record([gone], routed=[claim.message.id])
        assert (disabled.id, disabled.enabled) == (claim.delivery.subscription_id, False)
        assert not direct.record([gone], routed=[claim.message.id])

    def test_a_message_is_routed_with_its_last_delivery(self, direct: Store) -> None:
        one, two, three = (make_subscription(number) for number in (1, 2, 3))
        for each in (one, two, three):
            direct.add_subscription(each)
        (message,) = self.lease(direct, make_message())
        pending = make_delivery(message, three, NOW)
        self.route(direct, message, [pending], complete=False)
        first, second = (self.begin(direct, message, each) for each in (one, two))
        direct.record([self.completion(first)])
        assert not direct.routed(message.id)
        direct.record([self.completion(second)], routed=[message.id])
        assert direct.routed(message.id)
        (left,) = self.claim(direct, now=later(1))
        assert left.delivery.id == pending.id

    # -- twice, late, or not at all

    def test_a_completion_that_comes_twice_counts_once(self, direct: Store) -> None:
        claim = self.start(direct)
        failed = self.completion(claim, PENDING, status=500, due_at=later(5))
        for _ in range(2):
            direct.record([failed, failed], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count, kept.due_at) == (PENDING, 1, later(5))
        assert len(direct.attempts([kept.id])) == 1
        subscription = direct.subscription(kept.subscription_id)
        assert subscription is not None
        assert subscription.failures == 1

    def test_one_known_delivery_delays_no_other_of_its_batch(self, direct: Store) -> None:
        claims = [self.start(direct, number) for number in (1, 2, 3)]
        direct.record([self.completion(claims[1])])
        ended = [self.completion(claim) for claim in claims]
        direct.record(ended, routed=[claim.message.id for claim in claims])
        for claim in claims:
            kept = direct.delivery(claim.delivery.id)
            assert kept is not None
            assert (kept.state, kept.attempt_count) == (DELIVERED, 1)
            assert direct.routed(claim.message.id)

    def test_delivered_late_beats_open_states(self, direct: Store) -> None:
        claim = self.start(direct)
        (again,) = direct.claim_messages(now=later(60), lease=LEASE, limit=10, token="other")
        assert again.claims == 1
        self.route(direct, again, [attrs.evolve(claim.delivery, state=PENDING)])
        direct.record([self.completion(claim, at=later(61))], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 1)
        assert not self.claim(direct, now=later(1000))

    def test_other_late_completions_are_history_only(self, direct: Store) -> None:
        claim = self.start(direct)
        (again,) = direct.claim_messages(now=later(60), lease=LEASE, limit=10, token="other")
        self.route(direct, again, [attrs.evolve(claim.delivery, state=PENDING)])
        (other,) = self.claim(direct, now=later(61))
        failed = self.completion(claim, DeliveryState.FAILED, status=500, at=later(62))
        direct.record([failed], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DeliveryState.IN_FLIGHT, 1)
        direct.record([self.completion(other, at=later(63))])
        direct.record([attrs.evolve(failed, attempt=None)], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 2)

    def test_a_lost_lease_loses_no_attempt(self, direct: Store) -> None:
        claim = self.start(direct)
        direct.claim_messages(now=later(60), lease=LEASE, limit=10, token="other")
        direct.record([self.completion(claim, at=later(61))], routed=[claim.message.id])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert kept.state is DELIVERED
        # The other worker is still routing it.
        assert not direct.routed(claim.message.id)
        self.route(direct, claim.message, [attrs.evolve(claim.delivery, state=PENDING)])
        assert direct.routed(claim.message.id)
        assert not self.claim(direct, now=later(1000))

    def test_an_erased_message_stays_erased(self, direct: Store) -> None:
        subscription = make_subscription(owner="ada")
        direct.add_subscription(subscription)
        (message,) = self.lease(direct, make_message(sender="ada"))
        claim = self.begin(direct, message, subscription)
        assert direct.erase("ada", limit=10) == 1
        direct.record([self.completion(claim)], routed=[message.id])
        assert direct.delivery(claim.delivery.id) is None
        assert not direct.attempts([claim.delivery.id])
        assert direct.message(message.id) is None

    # -- leases

    def test_earlier_leases_are_counted(self, direct: Store) -> None:
        (first,) = self.lease(direct, make_message())
        assert first.claims == 0
        (looked,) = direct.claim_messages(now=later(60), lease=timedelta(), limit=10)
        (second,) = direct.claim_messages(now=later(60), lease=LEASE, limit=10, token="two")
        assert (looked.claims, second.claims) == (1, 1)
        assert second == first

    def test_a_slow_one_gets_a_row_under_a_lease(self, direct: Store) -> None:
        claim = self.start(direct)
        routing = Routing(message=claim.message, deliveries=[claim.delivery])
        direct.route([routing], leased=(claim.token, later(60)))
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert kept.state is DeliveryState.IN_FLIGHT
        assert direct.routed(claim.message.id)
        assert not self.claim(direct, now=later(59))
        leased = attrs.evolve(claim, direct=False)
        direct.renew([leased], until=later(120))
        assert not self.claim(direct, now=later(119))
        direct.record([self.completion(leased, at=later(119))])
        kept = direct.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 1)

    def test_the_lease_of_a_dead_worker_ends(self, direct: Store) -> None:
        claim = self.start(direct)
        routing = Routing(message=claim.message, deliveries=[claim.delivery])
        direct.route([routing], leased=(claim.token, later(60)))
        (again,) = self.claim(direct, now=later(60), token="other")
        assert again.delivery.id == claim.delivery.id
        assert again.delivery.attempt_count == 0
