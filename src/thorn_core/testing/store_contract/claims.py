"""The contract of stores: claims and their leases."""

from __future__ import annotations

import threading

import attrs
import pytest

from thorn_core.delivery import make_unstored_delivery
from thorn_core.ports.store import Store
from thorn_core.testing.store_contract.steps import (
    NOW,
    PENDING,
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import DeliveryState


class ClaimContract(StoreSteps):
    """A store leases due deliveries, fairly between recipients, to one worker at a time."""

    def test_a_claim_has_all_that_the_request_needs(self, store: Store) -> None:
        message, subscription = make_message(), make_subscription(secrets=("whsec_x",))
        store.add_subscription(subscription)
        (made,) = self.deliver(store, message, subscription)
        (claim,) = self.claim(store)
        assert claim.message == message
        assert claim.subscription == subscription
        assert claim.token == "one"  # noqa: S105 - of a lease
        assert claim.delivery == attrs.evolve(made, state=DeliveryState.IN_FLIGHT)
        assert store.delivery(made.id) == claim.delivery
        assert store.delivery("dlv_none") is None

    def test_an_unstored_subscription_travels_with_its_delivery(self, store: Store) -> None:
        message = make_message()
        target = make_subscription(
            secrets=("whsec_x",), headers={"X-A": "1"}, owner="3", rate_limit=2.0
        )
        self.publish(store, message)
        self.route(store, message, [make_unstored_delivery(message, target, NOW)])
        (claim,) = self.claim(store)
        assert claim.subscription == claim.delivery.target == target

    def test_a_removed_subscription_is_none(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(), subscription)
        store.remove_subscription(subscription.id, now=NOW)
        (claim,) = self.claim(store)
        assert claim.subscription is None

    def test_only_what_is_due_is_claimed(self, store: Store) -> None:
        self.deliver(store, make_message(at=later(10)), make_subscription())
        assert not self.claim(store, now=later(9.999))
        assert len(self.claim(store, now=later(10))) == 1

    def test_what_is_leased_is_nobody_elses_until_the_lease_ends(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (first,) = self.claim(store)
        assert not self.claim(store, now=later(59), token="two")
        (second,) = self.claim(store, now=later(60), token="two")
        assert second.delivery.id == first.delivery.id
        assert second.delivery.attempt_count == 0

    def test_no_more_is_claimed_than_asked_for(self, store: Store) -> None:
        self.deliver(store, make_message(), *(make_subscription(n) for n in range(5)))
        assert len(self.claim(store, limit=2)) == 2
        assert len(self.claim(store, limit=9)) == 3

    def test_subscriptions_take_turns(self, store: Store) -> None:
        # Independent of their hosts.
        crowd = make_subscription(1)
        loner = make_subscription(2, url=crowd.url)
        for number in range(200):
            self.deliver(store, make_message(number), crowd)
        self.deliver(store, make_message(999), loner)
        claimed = self.claim(store, limit=10)
        assert {c.delivery.subscription_id for c in claimed} == {crowd.id, loner.id}
        assert len(claimed) == 10

    def test_the_oldest_of_a_subscription_comes_first(self, store: Store) -> None:
        for number in (3, 1, 2):
            self.deliver(store, make_message(number, at=later(-10 + number)), make_subscription())
        assert [claim.message.at for claim in self.claim(store, limit=2)] == [later(-9), later(-8)]

    def test_a_subscription_gets_no_more_at_once_than_it_may(self, store: Store) -> None:
        one, two = make_subscription(1), make_subscription(2)
        for number in range(5):
            self.deliver(store, make_message(number), one, two)
        claimed = self.claim(store, per_recipient=3, busy={one.id: 2, two.id: 9})
        assert [c.delivery.subscription_id for c in claimed] == [one.id]
        assert len(self.claim(store, per_recipient=4, busy={})) == 8

    def test_deliveries_can_be_claimed_by_message(self, store: Store) -> None:
        for number in range(3):
            self.deliver(store, make_message(number), make_subscription(1), make_subscription(2))
        ids = [make_message(1).id, "msg_none"]
        claimed = self.claim(store, message_ids=ids, per_recipient=1)
        assert [c.message.id for c in claimed] == ids[:1] * 2
        assert not self.claim(store, message_ids=ids)
        assert len(self.claim(store)) == 4
        late = make_message(9, at=later(5))
        self.deliver(store, late, make_subscription(1))
        assert not self.claim(store, message_ids=[late.id])
        assert not self.claim(store, now=later(5), message_ids=[late.id], limit=0)
        assert len(self.claim(store, now=later(5), message_ids=[late.id])) == 1

    def test_a_message_that_is_named_twice_is_claimed_once(self, store: Store) -> None:
        self.deliver(store, make_message(1), make_subscription(1))
        named = [make_message(1).id, *(make_message(n).id for n in range(2, 80))]
        claimed = self.claim(store, message_ids=[*named, *named])
        assert [claim.message.id for claim in claimed] == named[:1]

    def test_who_is_held_up_hides_nobody_from_a_claim_by_message(self, store: Store) -> None:
        busy, paused, loner = (make_subscription(number) for number in (1, 2, 3))
        full = {busy.id: 9, loner.id: 9}
        self.deliver(store, make_message(1), busy, paused, loner)
        self.deliver(store, make_message(2), busy, paused, loner)
        (claim,) = self.claim(store, limit=1, busy=full, per_recipient=9)
        assert claim.delivery.subscription_id == paused.id
        until = later(60)
        ended = self.completion(claim, PENDING, status=429, due_at=until, pause_until=until)
        store.record([ended])
        ids = [make_message(1).id, make_message(2).id]
        full = {busy.id: 9}
        claimed = self.claim(store, message_ids=ids, limit=1, busy=full, per_recipient=9)
        assert [claim.delivery.subscription_id for claim in claimed] == [loner.id]

    def test_two_claimers_at_once_never_get_the_same(self, store: Store) -> None:
        for number in range(300):
            self.deliver(store, make_message(number), make_subscription(number % 7))
        handles = [self.reopen(store) for _ in range(2)]
        claimed: list[list[str]] = [[], []]
        start = threading.Barrier(2)

        def run(index: int) -> None:
            start.wait()
            while got := self.claim(handles[index], limit=7, token=f"t{index}"):
                claimed[index] += [claim.delivery.id for claim in got]

        threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(claimed[0]) + len(claimed[1]) == 300
        assert len({*claimed[0], *claimed[1]}) == 300

    def test_a_claimer_whose_clock_is_behind_takes_nothing_that_is_leased(
        self, store: Store
    ) -> None:
        self.deliver(store, make_message(), make_subscription())
        assert len(self.claim(store, now=later(30))) == 1
        assert not self.claim(store, now=NOW, token="behind")
        assert not self.claim(store, now=later(89), token="ahead")
        assert len(self.claim(store, now=later(90), token="ahead")) == 1

    def test_a_renewed_lease_lasts_longer(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        claims = self.claim(store)
        store.renew(claims, until=later(100))
        assert not self.claim(store, now=later(99), token="two")
        assert len(self.claim(store, now=later(100), token="two")) == 1
        store.renew(claims, until=later(1000))
        assert len(self.claim(store, now=later(160), token="three")) == 1

    def test_a_released_claim_is_pending_as_before(self, store: Store) -> None:
        (made,) = self.deliver(store, make_message(), make_subscription())
        claims = self.claim(store)
        store.release(claims)
        assert store.delivery(made.id) == made
        (again,) = self.claim(store, token="two")
        store.release(claims)
        kept = store.delivery(again.delivery.id)
        assert kept is not None
        assert kept.state is DeliveryState.IN_FLIGHT

    def test_what_comes_next_is_foreseen(self, store: Store) -> None:
        if store.shared:
            pytest.skip("others may change it at any time")
        assert store.next_due(NOW) is None
        self.deliver(store, make_message(at=later(10)), make_subscription())
        assert store.next_due(NOW) == later(10)
        (claim,) = self.claim(store, now=later(10))
        assert store.next_due(later(10)) == later(70)
        store.record([self.completion(claim, PENDING, status=500, due_at=later(20))])
        assert store.next_due(later(10)) == later(20)
