"""Deliveries in a database: found by any criterion, in pages, counted, replayed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from parts import (
    DELIVERED,
    FAILED,
    IN_FLIGHT,
    PENDING,
    Parts,
    completion,
    delivery,
    later,
    message,
    subscription,
)

from thorn_core.keys import recipient_key
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.rows import micros
from thorn_core.values import Delivery

ONE, TWO = subscription(1), subscription(2)


@pytest.fixture
def every(store: Parts) -> list[Delivery]:
    """Six deliveries of three messages: one delivered, one failed, one in flight."""
    store.deliver(message(1), ONE, TWO)
    store.deliver(message(2, 60, event="user.created"), ONE, TWO)
    store.deliver(message(3, 120), ONE, TWO)
    first, second, _ = store.claim(later(60), limit=3)
    store.record(
        completion(first, at=later(1)),
        completion(second, FAILED, status=500, at=later(2), reason="status 500"),
    )
    return walked(store, DeliveryQuery(), limit=100)


def page(store: Parts, query: DeliveryQuery, after=None, limit=100, **order: Any):
    return store.read(lambda s: store.history.deliveries(s, query, after, limit, **order))


def walked(store: Parts, query: DeliveryQuery, limit: int, **order: Any) -> list[Delivery]:
    found: list[Delivery] = []
    while some := page(store, query, found[-1].id if found else None, limit, **order):
        assert len(some) <= limit
        found += some
    return found


def test_deliveries_are_found_by_any_criterion(store, every):
    assert [each.id for each in every] == sorted(each.id for each in every)
    states = [each.state for each in every]
    assert sorted(states) == sorted([DELIVERED, FAILED, IN_FLIGHT, PENDING, PENDING, PENDING])

    def found(**criteria: Any) -> list[int]:
        query = DeliveryQuery(**criteria)
        got = page(store, query)
        assert page(store, query, newest_first=True) == got[::-1]
        assert walked(store, query, 1) == got
        assert store.read(lambda s: store.history.count(s, query)) == len(got)
        return [every.index(each) for each in got]

    def where(*wanted: Any) -> list[int]:
        return [n for n, state in enumerate(states) if state in wanted]

    mine = [n for n, each in enumerate(every) if each.subscription_id == ONE.id]
    assert found() == list(range(6))
    assert found(ids=(every[2].id, every[0].id, "dlv_none", every[0].id)) == [0, 2]
    assert found(ids=("dlv_none",)) == found(ids=()) == []
    assert found(message_id=message(2, 60).id) == [2, 3]
    assert found(message_id="msg_none") == found(message_id=message(9).id) == []
    assert found(subscription_id=ONE.id) == mine
    assert found(subscription_id="sub_none") == []
    assert found(event="user.*") == [2, 3]
    assert found(event="order.*") == []
    for wanted in (
        (DELIVERED,),
        (PENDING,),
        (IN_FLIGHT,),
        (PENDING, IN_FLIGHT),
        (PENDING, DELIVERED),
        (IN_FLIGHT, FAILED, DELIVERED),
    ):
        assert found(states=wanted) == where(*wanted)
        both = [n for n in where(*wanted) if n in mine]
        assert found(states=wanted, subscription_id=ONE.id) == both
        late = [n for n in where(*wanted) if n in (2, 3)]
        assert found(states=wanted, event="*.created", since=later(60), until=later(120)) == late
    assert found(states=()) == []
    assert found(since=later(60)) == [2, 3, 4, 5]
    assert found(until=later(60)) == [0, 1]
    both = [n for n in mine if n in (0, 1)]
    assert found(subscription_id=ONE.id, message_id=message(1).id) == both


def test_a_delivery_is_shown_as_it_stands(store, every):
    for each in every:
        assert store.read(lambda s, each=each: store.history.delivery(s, each.id)) == each
    assert store.read(lambda s: store.history.delivery(s, "dlv_none")) is None
    (failed,) = (each for each in every if each.state is FAILED)
    assert (failed.reason, failed.attempt_count, failed.finished_at) == ("status 500", 1, later(2))


def test_a_recipient_with_the_same_key_sees_nothing(store, every, monkeypatch):
    stranger = "sub_of_the_same_key"
    monkeypatch.setattr(
        "thorn_core.stores.sql.searching.recipient_key",
        lambda id_: recipient_key(ONE.id if id_ == stranger else id_),
    )
    assert page(store, DeliveryQuery(subscription_id=stranger)) == []
    assert page(store, DeliveryQuery(subscription_id=ONE.id))


def test_many_ids_come_in_order_and_pages(store):
    to = [subscription(n) for n in range(1, 1201)]
    made = store.deliver(message(1), *to)
    query = DeliveryQuery(ids=tuple(each.id for each in reversed(made)))
    assert [each.id for each in walked(store, query, 500)] == [each.id for each in made]
    newest = walked(store, query, 500, newest_first=True)
    assert [each.id for each in newest] == [each.id for each in reversed(made)]
    assert store.read(lambda s: store.history.count(s, query)) == 1200


def test_rare_events_are_found_among_many(store):
    for n in range(5):
        store.deliver(message(n, n, event="rare.one"), ONE)
        many = [message(1000 * n + m, n + 0.5) for m in range(10, 700)]
        store.fill([(each, [delivery(each, ONE, state=DELIVERED)]) for each in many])
    rare = walked(store, DeliveryQuery(event="rare.*"), 2)
    assert len(rare) == 5
    assert walked(store, DeliveryQuery(event="rare.*"), 2, newest_first=True) == rare[::-1]
    assert store.read(lambda s: store.history.count(s, DeliveryQuery(event="rare.*"))) == 5


def test_attempts_come_in_pages(store):
    one, two = store.deliver(message(1), ONE, TWO)
    for n in range(3):
        for claim in store.claim(later(n)):
            store.record(completion(claim, PENDING, status=500, at=later(n), due_at=later(n)))

    def attempts(ids, after=None, limit=100):
        return store.read(lambda s: store.history.attempts(s, ids, after, limit))

    every = attempts([two.id, one.id, one.id, "dlv_none"])
    assert len(every) == 6
    assert [each.id for each in every] == sorted(each.id for each in every)
    assert attempts([one.id, two.id], every[1].id, 3) == every[2:5]
    assert attempts([one.id, two.id], every[2].id) == every[3:]
    assert attempts([two.id]) == every[3:]
    assert attempts([]) == attempts(["dlv_none"]) == attempts([one.id], "att_none") == []


def test_a_finished_delivery_is_replayed_once(store, every):
    now = later(300)

    def replay(query: DeliveryQuery, limit: int = 10) -> list[Delivery]:
        return store.run(lambda s: store.history.replay(s, query, micros(now), limit))

    assert not replay(DeliveryQuery(states=(PENDING,)))
    (first,) = replay(DeliveryQuery(), 1)
    (second,) = replay(DeliveryQuery())
    assert not replay(DeliveryQuery())
    finished = [each for each in every if each.state.finished]
    assert [first, second] == [
        attrs.evolve(
            each,
            state=PENDING,
            due_at=now,
            attempts_before=1,
            finished_at=None,
            reason=None,
        )
        for each in finished
    ]
    claimed = {claim.delivery.id for claim in store.claim(now)}
    assert {first.id, second.id} <= claimed
