"""The contract of stores: messages, from publishing to routing."""

from __future__ import annotations

import threading
import tracemalloc
from datetime import timedelta

from thorn_core.delivery import make_cancelled_delivery, make_delivery
from thorn_core.ports.store import Store
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.queries import DeliveryQuery
from thorn_core.retries import RetryPolicy
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
from thorn_core.values import DeliveryState, Message


class MessageContract(StoreSteps):
    """A store keeps messages until they are routed, and wakes the router."""

    def test_a_message_comes_back_as_it_was(self, store: Store) -> None:
        full = make_message(
            data='{"title":"Hé 🎉"}'.encode(),
            sender="42",
            sender_name="Ada",
            ref="https://example.com/1",
            headers={"X-A": "1"},
            context={"field": "tags", "n": [1, None]},
            timeout=2.5,
            retry_policy=RetryPolicy((1, 2.5), jitter=0.1),
            envelope="cloudevents",
            declared="article.{.kind}",
            only="sub_1",
        )
        self.publish(store, full)
        assert store.message(full.id) == full
        assert list(store.claim_messages(now=NOW, lease=LEASE, limit=10)) == [full]
        assert store.message("msg_none") is None

    def test_a_message_is_published_once(self, store: Store) -> None:
        self.publish(store, make_message(), make_message(data=b"2"))
        self.publish(store, make_message(data=b"3"))
        (only,) = store.claim_messages(now=NOW, lease=LEASE, limit=10)
        assert only.data == b'{"n":1}'

    def test_the_same_key_sends_once(self, store: Store) -> None:
        def keyed(number: int, key: int) -> Message:
            return make_message(number, idempotency=bytes(31) + bytes([key]))

        told: list[dict[str, str]] = []
        batches = (
            [keyed(1, 1)],
            [keyed(2, 1), keyed(3, 2)],
            # Twice in one batch, next to a message without a key.
            [keyed(4, 3), make_message(5), keyed(6, 3), keyed(7, 2)],
        )
        for messages in batches:
            store.publish(messages, within=IMMEDIATE, written=lambda ids: told.append(dict(ids)))
        ids = [make_message(number).id for number in range(8)]
        assert told == [{}, {ids[2]: ids[1]}, {ids[6]: ids[4], ids[7]: ids[3]}]
        kept = store.claim_messages(now=NOW, lease=LEASE, limit=10)
        assert sorted(m.id for m in kept) == [ids[1], ids[3], ids[4], ids[5]]
        assert store.message(ids[2]) is None

    def test_a_key_is_free_again_when_its_message_is_gone(self, store: Store) -> None:
        key = bytes(range(32))
        told: list[dict[str, str]] = []
        for number in (1, 2):
            message = make_message(number, idempotency=key)
            store.publish([message], within=IMMEDIATE, written=lambda ids: told.append(dict(ids)))
            store.claim_messages(now=NOW, lease=LEASE, limit=1, ids=[message.id])
            self.route(store, message, [])
            store.purge(DeliveryQuery(), limit=10)
        assert told == [{}, {}]

    def test_of_keyed_messages_at_once_one_is_the_first(self, store: Store) -> None:
        told: list[int] = []
        start = threading.Barrier(4)

        def publish(number: int) -> None:
            start.wait()
            message = make_message(number, idempotency=bytes(32))
            store.publish([message], within=IMMEDIATE, written=lambda ids: told.append(len(ids)))

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == [0, 1, 1, 1]

    def test_messages_are_leased_the_oldest_first(self, store: Store) -> None:
        messages = [make_message(number, at=later(-number)) for number in (1, 2, 3)]
        self.publish(store, *messages)
        first = store.claim_messages(now=NOW, lease=LEASE, limit=2)
        assert [m.id for m in first] == [messages[2].id, messages[1].id]
        rest = store.claim_messages(now=NOW, lease=LEASE, limit=2)
        assert [m.id for m in rest] == [messages[0].id]
        assert not store.claim_messages(now=later(59), lease=LEASE, limit=2)
        again = store.claim_messages(now=later(60), lease=LEASE, limit=5)
        assert {m.id for m in again} == {m.id for m in messages}

    def test_messages_can_be_leased_by_id(self, store: Store) -> None:
        messages = [make_message(number) for number in (1, 2, 3)]
        self.publish(store, *messages)
        ids = [messages[1].id, "msg_none"]
        claimed = store.claim_messages(now=NOW, lease=LEASE, limit=5, ids=ids)
        assert [m.id for m in claimed] == [messages[1].id]
        assert not store.claim_messages(now=NOW, lease=LEASE, limit=5, ids=ids)
        rest = store.claim_messages(now=NOW, lease=LEASE, limit=5)
        assert {m.id for m in rest} == {messages[0].id, messages[2].id}
        assert store.claim_messages(now=later(61), lease=LEASE, limit=5, ids=ids)

    def test_a_routed_message_is_not_leased_again(self, store: Store) -> None:
        message = make_message()
        self.publish(store, message)
        assert not store.routed(message.id)
        store.claim_messages(now=NOW, lease=LEASE, limit=1)
        self.route(store, message, [])
        assert store.routed(message.id)
        assert store.routed("msg_none")
        assert not store.claim_messages(now=later(61), lease=LEASE, limit=1)

    def test_a_postponed_message_is_leased_when_its_time_has_come(self, store: Store) -> None:
        leased, waiting, routed = (make_message(number) for number in (1, 2, 3))
        self.publish(store, leased, routed)
        store.claim_messages(now=NOW, lease=LEASE, limit=2)
        self.route(store, routed, [])
        self.publish(store, waiting)
        ids = [leased.id, waiting.id, routed.id, "msg_none"]
        store.postpone(ids, until=later(500))
        (claimed,) = store.claim_messages(now=later(61), lease=timedelta(hours=1), limit=5)
        assert claimed.id == waiting.id
        assert not store.claim_messages(now=later(499), lease=LEASE, limit=5, ids=ids)
        store.postpone([leased.id], until=later(70))
        (claimed,) = store.claim_messages(now=later(70), lease=LEASE, limit=5)
        assert claimed.id == leased.id
        assert store.routed(routed.id)

    def test_a_delivery_may_be_finished_when_it_is_made(self, store: Store) -> None:
        message, subscription = make_message(), make_subscription()
        self.publish(store, message)
        cancelled = make_cancelled_delivery(message, subscription, "no URL", later(1), stored=False)
        for _ in range(2):
            self.route(store, message, [cancelled])
        assert store.delivery(cancelled.id) == cancelled
        assert not self.claim(store, now=later(1000))
        assert not self.claim(store, now=later(1000), message_ids=[message.id])
        stats = store.stats(now=later(2), window=LEASE)
        assert stats.deliveries[DeliveryState.CANCELLED] == 1
        assert stats.due_since is None
        assert store.replay(DeliveryQuery(ids=(cancelled.id,)), now=later(3), limit=5)
        (claim,) = self.claim(store, now=later(3))
        assert claim.subscription == subscription

    def test_routing_again_writes_nothing_twice(self, store: Store) -> None:
        message, subscription = make_message(), make_subscription()
        store.add_subscription(subscription)
        self.publish(store, message)
        delivery = make_delivery(message, subscription, NOW)
        self.route(store, message, [delivery], complete=False)
        assert not store.routed(message.id)
        (claim,) = self.claim(store)
        store.record([self.completion(claim)])
        self.route(store, message, [delivery])
        (kept,) = store.deliveries(DeliveryQuery(message_id=message.id))
        assert (kept.state, kept.attempt_count) == (DELIVERED, 1)
        assert not self.claim(store)

    def test_a_routed_message_may_get_more_deliveries(self, store: Store) -> None:
        message, early, late = make_message(), make_subscription(1), make_subscription(2)
        self.deliver(store, message, early)
        more = [make_delivery(message, subscription, NOW) for subscription in (early, late)]
        self.route(store, message, more, complete=False)
        assert store.routed(message.id)
        assert sorted(c.delivery.subscription_id for c in self.claim(store)) == [early.id, late.id]
        gone = make_message(9)
        self.route(store, gone, [make_delivery(gone, early, NOW)])
        assert store.message(gone.id) is None
        assert not store.deliveries(DeliveryQuery(message_id=gone.id))

    def test_a_huge_fan_out_is_routed_in_chunks(self, store: Store) -> None:
        self.populate(store, (make_subscription(number) for number in range(self.fan_out)))
        message = make_message()
        self.publish(store, message)
        after, routed, peak = None, 0, 0
        # Measure the last chunks only, which need the most memory: measuring is several times
        # slower.
        measured = self.fan_out if self.fan_out_memory is None else self.fan_out - 3000
        while routed < self.fan_out:
            if routed >= measured:
                tracemalloc.start()
            page = store.matching("article.created", sender=None, after=after, limit=1000)
            chunk = [make_delivery(message, subscription, NOW) for subscription in page]
            self.route(store, message, chunk, complete=False)
            if routed >= measured:
                peak = max(peak, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
            assert page
            after, routed = page[-1].id, routed + len(page)
        self.route(store, message, [])
        assert routed == self.fan_out
        assert self.fan_out_memory is None or peak < self.fan_out_memory
        assert store.stats(now=NOW, window=LEASE).deliveries[PENDING] == self.fan_out

    def test_workers_are_woken(self, store: Store) -> None:
        woken = threading.Event()
        forget = store.on_work(woken.set)
        self.publish(store, make_message(1))
        if not store.shared:
            assert woken.wait(10)
        forget()
        woken.clear()
        self.publish(store, make_message(2))
        assert not woken.is_set()

    def test_threads_may_publish_at_once(self, store: Store) -> None:
        def publish(begin: int) -> None:
            for number in range(begin, begin + 50):
                self.publish(store, make_message(number))

        threads = [threading.Thread(target=publish, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.claim_messages(now=NOW, lease=LEASE, limit=1000)) == 200
