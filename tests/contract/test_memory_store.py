"""The memory store keeps the contract, stays within its bounds, and agrees with a naive model."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scale import size

from thorn_core import DeliveryQuery, DeliveryState, MemoryStore, Routing, StoreError
from thorn_core.delivery import make_delivery
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.stores.memory.time_queue import TimeQueue
from thorn_core.testing.store_contract import (
    LEASE,
    NOW,
    StoreContract,
    later,
    make_message,
    make_subscription,
)


class TestMemoryStore(StoreContract):
    fan_out = size(6000, short=20_000, long=200_000)

    def make_store(self):
        return MemoryStore()

    def test_history_is_bounded(self):
        store = MemoryStore(history=10)
        for number in range(50):
            self.deliver(store, make_message(number), make_subscription(number % 3))
            store.record([self.completion(claim) for claim in self.claim(store)])
            self.deliver(store, make_message(1000 + number))
        kept = store.deliveries(DeliveryQuery(), limit=100)
        assert [d.message_id for d in kept] == [make_message(n).id for n in range(40, 50)]
        stats = store.stats(now=NOW, window=LEASE)
        assert (stats.messages, stats.attempts) == (20, 10)
        assert store.message(make_message(0).id) is None

    def test_a_full_store_refuses_rather_than_forgets(self):
        store = MemoryStore(backlog=3)
        self.deliver(store, make_message(1), make_subscription(1), make_subscription(2))
        self.publish(store, make_message(2))
        with pytest.raises(StoreError, match="3 messages and deliveries wait"):
            self.publish(store, make_message(3))
        store.record([self.completion(claim) for claim in self.claim(store, limit=1)])
        self.publish(store, make_message(3))

    def test_a_message_waits_for_the_commit(self):
        class Unit:
            handle = None
            open = True

            def __init__(self):
                self.callbacks = []

            def on_commit(self, callback):
                self.callbacks.append(callback)

            async def run(self, function):
                return function()

        store, committed, rolled_back = MemoryStore(), Unit(), Unit()
        store.publish([make_message(1)], within=committed)
        store.publish([make_message(2)], within=rolled_back)
        assert store.message(make_message(1).id) is None
        for callback in committed.callbacks:
            callback()
        assert [m.id for m in store.claim_messages(now=NOW, lease=LEASE, limit=9)] == [
            make_message(1).id
        ]

    def test_a_forked_child_leaves_the_messages_to_its_parent(self):
        store = MemoryStore()
        store.add_subscription(make_subscription())
        self.deliver(store, make_message(), make_subscription())
        woken = []
        store.on_work(lambda: woken.append(1))
        store.after_fork()
        assert store.message(make_message().id) is None
        assert not self.claim(store)
        assert self.matched(store, "article.created")
        self.publish(store, make_message(2))
        assert not woken

    def test_recording_what_has_gone_is_no_fault(self):
        store = MemoryStore(history=0)
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        completion = self.completion(claim)
        store.record([completion])
        assert store.delivery(claim.delivery.id) is None
        assert list(store.record([completion])) == []
        store.route([Routing(message=make_message(77), deliveries=[])])

    def test_a_recipient_that_nothing_waits_for_is_forgotten(self):
        store = MemoryStore()
        for number in range(100):
            self.deliver(store, make_message(number), make_subscription(number))
        store.record([self.completion(claim) for claim in self.claim(store)])
        assert not self.claim(store)
        assert not store._queue.turns._lines

    def test_deliveries_claimed_by_message_leave_no_trace_in_the_queues(self):
        store = MemoryStore(history=10)
        for number in range(2000):
            message = make_message(number)
            self.publish(store, message)
            store.claim_messages(now=NOW, lease=LEASE, limit=1, ids=[message.id])
            deliveries = [make_delivery(message, make_subscription(), NOW)]
            store.route([Routing(message=message, deliveries=deliveries)])
            claims = self.claim(store, message_ids=[message.id])
            store.record([self.completion(claim) for claim in claims])
        queues = [store._outbox._unrouted, store._outbox._leases, store._queue._leases]
        queues += [line.waiting for line in store._queue.turns._lines.values()]
        assert max(len(queue._entries) for queue in queues) <= 130
        assert len(store._queue.turns._later) <= 2


def test_a_queue_forgets_what_no_longer_holds():
    held = set(range(1000))
    queue = TimeQueue(lambda item, time: item in held)
    for item in range(1000):
        queue.push(later(item), item, item)
        if item >= 10:
            held.discard(item)
    assert len(queue._entries) <= 130
    for item in range(10):
        assert queue.first() == (later(item), item)
        queue.pop()
    assert queue.first() is None


class Model(RuleBasedStateMachine):
    """The store against plain dictionaries, with a clock of its own."""

    def __init__(self):
        super().__init__()
        self.store = MemoryStore(history=1_000_000)
        self.contract = TestMemoryStore()
        self.now = NOW
        self.number = 0
        self.known = {}  # delivery id -> [state, due, lease until, token]
        self.claims = {}  # token -> claim
        self.paused = {}

    @rule(subscribers=st.sets(st.integers(0, 3)), delay=st.integers(0, 20))
    def publish(self, subscribers, delay):
        self.number += 1
        message = make_message(self.number, at=self.now + timedelta(seconds=delay))
        self.store.publish([message], within=IMMEDIATE)
        deliveries = [make_delivery(message, make_subscription(s), message.at) for s in subscribers]
        self.store.route([Routing(message=message, deliveries=deliveries)])
        for made in deliveries:
            self.known[made.id] = ["pending", made.due_at, None, None, made.subscription_id]

    @rule(seconds=st.integers(0, 50))
    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def due(self):
        found = set()
        for key, (state, due, until, _, recipient) in self.known.items():
            if self.paused.get(recipient, self.now) > self.now:
                continue
            if (state == "pending" and due <= self.now) or (
                state == "in_flight" and until <= self.now
            ):
                found.add(key)
        return found

    @rule(limit=st.integers(1, 6), each=st.integers(1, 3))
    def claim(self, limit, each):
        due = self.due()
        token = f"t{len(self.claims)}"
        got = self.contract.claim(
            self.store, now=self.now, limit=limit, token=token, per_recipient=each
        )
        by_recipient = {}
        for key in due:
            by_recipient.setdefault(self.known[key][4], []).append(key)
        possible = sum(min(len(keys), each) for keys in by_recipient.values())
        assert len(got) == min(limit, possible)
        assert {claim.delivery.id for claim in got} <= due
        for claim in got:
            self.claims[f"{token}{claim.delivery.id}"] = claim
            entry = self.known[claim.delivery.id]
            entry[0], entry[2], entry[3] = "in_flight", self.now + LEASE, token

    def held(self, claim):
        entry = self.known[claim.delivery.id]
        return entry[0] == "in_flight" and entry[3] == claim.token

    @rule(data=st.data(), state=st.sampled_from(["delivered", "failed", "pending"]))
    def record(self, data, state):
        if not self.claims:
            return
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        pause = data.draw(st.none() | st.integers(1, 90))
        until = None if pause is None else self.now + timedelta(seconds=pause)
        due = self.now + timedelta(seconds=7)
        completion = self.contract.completion(
            claim, DeliveryState(state), at=self.now, due_at=due, pause_until=until
        )
        entry = self.known[claim.delivery.id]
        is_open = entry[0] in ("pending", "in_flight")
        held = self.held(claim) or (state == "delivered" and is_open)
        self.store.record([completion])
        if held:
            entry[:4] = [state, due, None, None]
            if until is not None:
                self.paused[entry[4]] = max(until, self.paused.get(entry[4], until))

    @rule(data=st.data(), renew=st.booleans())
    def renew_or_release(self, data, renew):
        if not self.claims:
            return
        claim = self.claims[data.draw(st.sampled_from(sorted(self.claims)))]
        entry = self.known[claim.delivery.id]
        if renew:
            until = self.now + LEASE
            if self.held(claim):
                entry[2] = until
            self.store.renew([claim], until=until)
        else:
            if self.held(claim):
                entry[0], entry[2], entry[3] = "pending", None, None
            self.store.release([claim])

    @rule()
    def replay(self):
        replayed = self.store.replay(DeliveryQuery(), now=self.now, limit=2)
        for delivery in replayed:
            assert self.known[delivery.id][0] in ("delivered", "failed")
            self.known[delivery.id][:2] = ["pending", self.now]

    @rule()
    def purge(self):
        finished = {k for k, e in self.known.items() if e[0] in ("delivered", "failed")}
        gone = self.store.purge(DeliveryQuery(), limit=1)
        assert gone == min(1, len(finished))
        if gone:
            left = {d.id for d in self.store.deliveries(DeliveryQuery(), limit=10_000)}
            (key,) = set(self.known) - left
            assert key in finished
            del self.known[key]
            self.claims = {t: c for t, c in self.claims.items() if c.delivery.id != key}

    @invariant()
    def nothing_is_lost(self):
        kept = self.store.deliveries(DeliveryQuery(), limit=10_000)
        states = {d.id: str(d.state) for d in kept}
        assert set(states) == set(self.known)
        for key, entry in self.known.items():
            # An expired lease is taken back when somebody looks for it.
            allowed = {entry[0]}
            if entry[0] == "in_flight" and entry[2] <= self.now:
                allowed.add("pending")
            assert states[key] in allowed
            if states[key] == "pending" and entry[0] == "in_flight":
                entry[0], entry[3] = "pending", None


TestModel = Model.TestCase
TestModel.settings = hypothesis_settings(stateful_step_count=40)
