"""The contract of stores: paused and resumed subscriptions."""

from __future__ import annotations

import attrs
import pytest

from thorn_core.errors import NotFoundError
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery
from thorn_core.testing.store_contract.steps import (
    LEASE,
    NOW,
    PENDING,
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import Subscription


class PauseContract(StoreSteps):
    """A store holds the deliveries of paused subscriptions, and shows them as held."""

    def paused(self, store: Store, subscription: Subscription) -> None:
        """Add a subscription and pause it; return it."""
        store.add_subscription(subscription)
        store.pause(subscription.id, now=NOW)

    def test_a_paused_subscription_holds_its_deliveries(self, store: Store) -> None:
        mine, other = make_subscription(1), make_subscription(2)
        store.add_subscription(mine)
        self.deliver(store, make_message(1), mine, other)
        assert store.pause(mine.id, now=later(1)) == attrs.evolve(
            mine, paused=True, updated_at=later(1)
        )
        self.deliver(store, make_message(2), mine, other)
        held = store.deliveries(DeliveryQuery(subscription_id=mine.id))
        assert [(d.state, d.held, d.shown_state) for d in held] == [(PENDING, True, "held")] * 2
        others = store.deliveries(DeliveryQuery(subscription_id=other.id))
        assert [(d.held, d.shown_state) for d in others] == [(False, "pending")] * 2
        found = store.delivery(held[0].id)
        assert found is not None
        assert found.held
        claimed = self.claim(store, now=later(100))
        assert [claim.delivery.subscription_id for claim in claimed] == [other.id] * 2
        ids = [make_message(number).id for number in (1, 2)]
        assert not self.claim(store, now=later(100), message_ids=ids)
        assert store.stats(now=later(100), window=LEASE).due_since is None
        # A paused subscription still matches: new deliveries wait, too.
        assert self.matched(store, "article.created") == [mine.id]

    def test_a_resumed_subscription_gets_what_was_held(self, store: Store) -> None:
        subscription = make_subscription()
        self.paused(store, subscription)
        self.deliver(store, make_message(1), subscription)
        self.deliver(store, make_message(2, at=later(50)), subscription)
        assert not self.claim(store, now=later(5))
        resumed = store.resume(subscription.id, now=later(10))
        assert resumed == attrs.evolve(subscription, updated_at=later(10))
        assert store.subscription(subscription.id) == resumed
        (claim,) = self.claim(store, now=later(10))
        assert claim.message.id == make_message(1).id
        assert not claim.delivery.held
        assert len(self.claim(store, now=later(50))) == 1

    def test_a_subscription_may_be_paused_from_the_beginning(self, store: Store) -> None:
        subscription = make_subscription(paused=True)
        store.add_subscription(subscription)
        (made,) = self.deliver(store, make_message(), subscription)
        assert not self.claim(store, now=later(5))
        held = store.delivery(made.id)
        assert held is not None
        assert held.held
        store.resume(subscription.id, now=later(6))
        assert len(self.claim(store, now=later(6))) == 1

    def test_pausing_twice_changes_nothing(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        assert store.resume(subscription.id, now=later(1)) == subscription
        paused = store.pause(subscription.id, now=later(2))
        assert store.pause(subscription.id, now=later(3)) == paused
        for call in (store.pause, store.resume):
            with pytest.raises(NotFoundError, match="sub_none"):
                call("sub_none", now=NOW)

    def test_a_pause_survives_a_change(self, store: Store) -> None:
        subscription = make_subscription()
        self.paused(store, subscription)
        self.deliver(store, make_message(), subscription)
        moved = store.change_subscription(
            subscription.id, lambda s: attrs.evolve(s, url="https://new.example.com/")
        )
        assert moved.paused
        assert not self.claim(store, now=later(5))

    def test_what_is_in_flight_ends_while_its_subscription_is_paused(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(1), subscription)
        self.deliver(store, make_message(2), subscription)
        one, two = self.claim(store)
        store.pause(subscription.id, now=later(1))
        ended = self.completion(two, PENDING, status=500, due_at=later(2))
        store.record([self.completion(one), ended])
        assert not self.claim(store, now=later(100))
        kept = store.delivery(one.delivery.id)
        assert kept is not None
        assert (kept.state.finished, kept.held, kept.shown_state) == (True, False, "delivered")
        store.resume(subscription.id, now=later(101))
        (again,) = self.claim(store, now=later(101))
        assert again.delivery.id == two.delivery.id

    def test_what_a_removed_subscription_held_is_not_held_for_ever(self, store: Store) -> None:
        subscription = make_subscription()
        self.paused(store, subscription)
        self.deliver(store, make_message(), subscription)
        assert not self.claim(store)
        assert store.remove_subscription(subscription.id, now=later(1))
        (claim,) = self.claim(store, now=later(1))
        assert claim.subscription is None
        assert not claim.delivery.held
