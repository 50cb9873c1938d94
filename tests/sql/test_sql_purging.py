"""Removing what is over, and what is a sender's."""

from __future__ import annotations

from functools import partial

import pytest
from parts import (
    DELIVERED,
    PENDING,
    Parts,
    completion,
    delivery,
    later,
    message,
    subscription,
)

from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql import purging

ONE, TWO = subscription(1), subscription(2)


def counts(store: Parts) -> dict[str, int]:
    """How many rows there are, of tables that have some."""
    names = ("messages", "idempotency", "outbox", "queue", "deliveries", "attempts")
    found = {
        name: store.read(lambda s, name=name: s.first(f"SELECT count(*) FROM ${name}"))[0]
        for name in names
    }
    return {name: many for name, many in found.items() if many}


def purge(store: Parts, limit: int = 100, **criteria) -> int:
    query = DeliveryQuery(**criteria)
    return store.run(lambda s: purging.purge(s, query, limit))


def erase(store: Parts, sender: str, limit: int = 100) -> int | None:
    return store.run(lambda s: purging.erase(s, sender, limit))


def test_what_is_finished_goes_with_its_message_and_key(store):
    store.deliver(message(1, idempotency=b"k" * 32), ONE, TWO)
    store.deliver(message(2, 60), ONE)
    store.publish(message(3, 120))
    first, second = store.claim(later(1))
    store.record(completion(first))
    assert purge(store) == 1
    everything = {
        "messages": 3, "idempotency": 1, "outbox": 1, "queue": 2, "deliveries": 2
    }  # fmt: skip
    assert counts(store) == everything
    assert purge(store) == 0
    store.record(completion(second))
    assert purge(store, until=later(0)) == 0
    assert purge(store, subscription_id="sub_none") == 0
    assert purge(store, until=later(1)) == 1
    assert counts(store) == {"messages": 2, "outbox": 1, "queue": 1, "deliveries": 1}


def test_a_purge_takes_no_more_than_asked_for(store):
    store.deliver(message(1), *(subscription(n) for n in range(1, 6)))
    store.record(*(completion(claim) for claim in store.claim()))
    assert [purge(store, 3, states=(DELIVERED,)) for _ in range(3)] == [3, 2, 0]
    assert counts(store) == {}


def test_what_is_replayed_meanwhile_stays(store, monkeypatch):
    (made,) = store.deliver(message(1), ONE)
    store.record(*(completion(claim) for claim in store.claim()))
    find = purging.find

    def find_and_replay(statements, *arguments):
        found = find(statements, *arguments)
        store.history.replay(statements, DeliveryQuery(), 0, 10)
        return found

    monkeypatch.setattr(purging, "find", find_and_replay)
    assert purge(store) == 0
    monkeypatch.undo()
    assert store.read(lambda s: store.history.delivery(s, made.id)).state is PENDING


def test_messages_that_reached_nobody_go_once_they_are_routed(store):
    for n in range(5):
        store.deliver(message(n, n))
    store.deliver(message(5, 5), ONE)
    store.publish(message(6, 6))

    def sweep(until, limit):
        after = b""
        while after is not None:
            work = partial(purging.purge_unreached, until=until, after=after, limit=limit)
            after = store.run(work)

    sweep(later(2), 100)
    assert counts(store) == {"messages": 5, "outbox": 1, "queue": 1, "deliveries": 1}
    sweep(None, 2)
    assert counts(store) == {"messages": 2, "outbox": 1, "queue": 1, "deliveries": 1}


def test_all_that_is_a_senders_is_erased_wherever_it_stands(store):
    for n, sender in enumerate(("ada", "bob", "ada", None)):
        store.deliver(message(n, n, sender=sender, idempotency=bytes([n]) * 32), ONE, TWO)
    store.publish(message(9, 9, sender="ada"))
    claims = store.claim(later(9), limit=4)
    store.record(*(completion(claim) for claim in claims[:2]))
    assert erase(store, "ada") == 3
    assert erase(store, "ada") is None
    left = counts(store)
    assert (left["messages"], left["idempotency"], left["deliveries"]) == (2, 2, 4)
    assert "outbox" not in left
    # What was under way comes back as nothing.
    store.record(*(completion(claim, at=later(10)) for claim in claims[2:]))
    assert counts(store)["deliveries"] == 4
    assert erase(store, "ada") is None


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(purging, "ERASED_DELIVERIES", 6)


def test_very_many_deliveries_are_erased_step_by_step(store, small_steps):
    big = message(1, sender="ada")
    to = [subscription(n) for n in range(1, 21)]
    store.fill([(big, [delivery(big, each, state=DELIVERED) for each in to])])
    small = message(2, sender="ada")
    store.fill([(small, [delivery(small, ONE, state=DELIVERED)])])
    gone = []
    while (done := erase(store, "ada")) is not None:
        gone.append(done)
        assert len(gone) < 10
    assert sum(gone) == 2
    assert len(gone) > 2
    assert counts(store) == {}
