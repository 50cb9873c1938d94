"""The contract of stores: cancelled, erased and missing deliveries."""

from __future__ import annotations

import attrs

from thorn_core.delivery import make_delivery
from thorn_core.ports.store import Store
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.queries import DeliveryQuery
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
from thorn_core.values import OPERATOR, DeliveryState, Subscription

CANCELLED = DeliveryState.CANCELLED


class ClearingContract(StoreSteps):
    """A store cancels deliveries, erases a sender's messages, and finds missing deliveries."""

    # -- cancel

    def test_only_what_is_pending_is_cancelled(self, store: Store) -> None:
        one, two, three = (make_subscription(number) for number in (1, 2, 3))
        self.deliver(store, make_message(1), one, two, three)
        busy = {two.id: 100, three.id: 100}
        (done,) = self.claim(store, busy=busy)
        store.record([self.completion(done)])
        (under_way,) = self.claim(store, busy={three.id: 100})
        (cancelled,) = store.cancel(DeliveryQuery(), now=later(5), limit=10, reason="a mistake")
        assert cancelled.subscription_id == three.id
        assert (cancelled.state, cancelled.reason) == (CANCELLED, "a mistake")
        assert (cancelled.finished_at, cancelled.attempt_count) == (later(5), 0)
        assert store.delivery(cancelled.id) == cancelled
        assert not store.cancel(DeliveryQuery(), now=later(5), limit=10, reason="again")
        assert not self.claim(store, now=later(6))
        assert not self.claim(store, now=later(6), message_ids=[make_message(1).id])
        store.record([self.completion(under_way)])
        stats = store.stats(now=later(6), window=LEASE)
        assert (stats.deliveries[DELIVERED], stats.deliveries[CANCELLED]) == (2, 1)
        assert stats.due_since is None

    def test_a_cancellation_takes_what_is_asked_for_and_no_more(self, store: Store) -> None:
        one, two = make_subscription(1), make_subscription(2)
        for number in range(4):
            self.deliver(store, make_message(number), one, two)
        query = DeliveryQuery(subscription_id=one.id)
        counts = [len(store.cancel(query, now=NOW, limit=3, reason="enough")) for _ in range(3)]
        assert counts == [3, 1, 0]
        done = attrs.evolve(query, subscription_id=two.id, states=(DELIVERED,))
        assert not store.cancel(done, now=NOW, limit=3, reason="never")
        assert [c.delivery.subscription_id for c in self.claim(store)] == [two.id] * 4

    def test_what_is_cancelled_can_be_replayed(self, store: Store) -> None:
        (made,) = self.deliver(store, make_message(), make_subscription())
        store.cancel(DeliveryQuery(ids=(made.id,)), now=NOW, limit=1, reason="not now")
        (again,) = store.replay(DeliveryQuery(ids=(made.id,)), now=later(9), limit=1)
        assert (again.state, again.reason, again.finished_at) == (PENDING, None, None)
        assert len(self.claim(store, now=later(9))) == 1

    def test_what_is_held_is_cancelled(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(), subscription)
        store.pause(subscription.id, now=NOW)
        (cancelled,) = store.cancel(DeliveryQuery(), now=NOW, limit=5, reason="given up")
        assert (cancelled.held, cancelled.shown_state) == (False, "cancelled")
        store.resume(subscription.id, now=NOW)
        assert not self.claim(store)

    def test_what_waits_for_a_removed_subscription_is_cancelled(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(), subscription)
        store.remove_subscription(subscription.id, now=later(1))
        query = DeliveryQuery(subscription_id=subscription.id)
        assert len(store.cancel(query, now=later(1), limit=5, reason="removed")) == 1
        assert not self.claim(store, now=later(2))

    # -- erase

    def test_a_senders_messages_are_erased_in_whatever_state(self, store: Store) -> None:
        subscription = make_subscription()
        mine = [make_message(n, sender="ada", idempotency=bytes(31) + bytes([n])) for n in range(4)]
        others = [
            make_message(9, sender="bob"),
            make_message(10),
            make_message(11, sender=OPERATOR),
        ]
        for message in (mine[0], mine[1], mine[2], *others[:1]):
            self.deliver(store, message, subscription)
        (done,) = self.claim(store, message_ids=[mine[0].id])
        store.record([self.completion(done)])
        (under_way,) = self.claim(store, message_ids=[mine[1].id])
        self.publish(store, mine[3], *others[1:])
        assert [store.erase("ada", limit=3) for _ in range(3)] == [3, 1, 0]
        for message in mine:
            assert store.message(message.id) is None
            assert store.routed(message.id)
            assert not store.deliveries(DeliveryQuery(message_id=message.id))
        assert not store.attempts([done.delivery.id])
        assert len(store.deliveries(DeliveryQuery())) == 1
        # Late completions, routing and replays don't restore erased messages.
        store.record([self.completion(under_way)])
        store.renew([under_way], until=later(1000))
        store.release([under_way])
        self.route(store, mine[3], [make_delivery(mine[3], subscription, NOW)])
        assert not store.replay(DeliveryQuery(), now=NOW, limit=10)
        assert len(store.deliveries(DeliveryQuery())) == 1
        assert not store.attempts([under_way.delivery.id])
        waiting = store.claim_messages(now=later(5000), lease=LEASE, limit=10)
        assert {message.id for message in waiting} == {message.id for message in others[1:]}
        claimed = self.claim(store, now=later(5000))
        assert [claim.message.id for claim in claimed] == [others[0].id]
        # The erased idempotency keys are available again.
        told: list[int] = []
        again = attrs.evolve(mine[0], id=make_message(77).id)
        store.publish([again], within=IMMEDIATE, written=lambda ids: told.append(len(ids)))
        assert told == [0]

    # -- missing

    def missed(self, store: Store, subscription: Subscription, limit: int = 100) -> list[str]:
        """Return the ids of all missing messages, page by page."""
        found: list[str] = []
        after: str | None = None
        while True:
            page, after = store.missing(
                subscription, since=later(0), until=later(60), after=after, limit=limit
            )
            assert len(page) <= limit
            found += [message.id for message in page]
            if after is None:
                return found

    def test_messages_that_a_subscription_never_got_are_missing(self, store: Store) -> None:
        mine = make_subscription(1, owner="ada", enabled=False)
        got = make_message(1, at=later(1))
        self.deliver(store, got, mine)
        wanted = [
            make_message(2, at=later(0)),
            make_message(3, at=later(2), sender="ada"),
            make_message(4, at=later(59.999), only=mine.id),
        ]
        not_mine = [
            make_message(5, at=later(-0.001)),
            make_message(6, at=later(60)),
            make_message(7, at=later(3), event="user.created"),
            make_message(8, at=later(3), sender="bob"),
            make_message(9, at=later(3), sender=OPERATOR),
            make_message(10, at=later(3), only="sub_other"),
        ]
        for message in (*wanted, *not_mine):
            self.deliver(store, message)
        self.publish(store, make_message(11, at=later(4)))
        ids = [message.id for message in wanted]
        for limit in (1, 2, 100):
            assert self.missed(store, mine, limit) == ids
        found, _ = store.missing(mine, since=later(0), until=later(60))
        assert list(found) == wanted
        self.route(store, wanted[0], [make_delivery(wanted[0], mine, NOW)], complete=False)
        assert self.missed(store, mine) == ids[1:]

    def test_nothing_is_missing_where_there_is_nothing(self, store: Store) -> None:
        found, after = store.missing(make_subscription(), since=later(0))
        assert (list(found), after) == ([], None)
