"""The contract of stores: lookup, replay and purge of the history."""

from __future__ import annotations

from typing import Any

from thorn_core.delivery import make_delivery
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery
from thorn_core.testing.store_contract.steps import (
    DELIVERED,
    NOW,
    PENDING,
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import Delivery


class HistoryContract(StoreSteps):
    """A store finds, replays and deletes deliveries and attempts."""

    def test_deliveries_are_found_by_any_criterion(self, store: Store) -> None:
        every = self.history(store)
        assert len(every) == 4
        assert [d.id for d in every] == sorted(d.id for d in every)

        def found(**criteria: Any) -> list[int]:
            got = store.deliveries(DeliveryQuery(**criteria))
            return [every.index(delivery) for delivery in got]

        assert found(ids=(every[2].id, every[0].id, "dlv_none")) == [0, 2]
        assert found(message_id=make_message(2, at=later(60)).id) == [2, 3]
        assert found(message_id="msg_none") == []
        assert found(subscription_id=make_subscription(1).id) == [0, 2]
        assert found(event="user.*") == [2, 3]
        assert found(states=(DELIVERED,)) == [0]
        assert found(states=(PENDING, DELIVERED), event="article.created") == [0, 1]
        assert found(since=later(60)) == [2, 3]
        assert found(until=later(60)) == [0, 1]
        assert found(subscription_id=make_subscription(3).id, message_id=make_message(1).id) == [1]

    def test_deliveries_and_attempts_are_paged(self, store: Store) -> None:
        every = self.history(store)
        assert list(store.deliveries(DeliveryQuery(), limit=3)) == every[:3]
        assert list(store.deliveries(DeliveryQuery(), after=every[1].id, limit=1)) == [every[2]]
        for seconds in (70, 140, 210):
            claims = self.claim(
                store, now=later(seconds), limit=1, message_ids=[make_message(1).id]
            )
            completion = self.completion(
                claims[0], PENDING, status=500, at=later(seconds), due_at=later(seconds)
            )
            store.record([completion])
        ids = [delivery.id for delivery in every]
        attempts = store.attempts(ids)
        assert len(attempts) == 4
        assert list(store.attempts(ids, after=attempts[1].id, limit=1)) == [attempts[2]]
        assert not store.attempts([])

    def test_deliveries_come_by_the_age_of_their_messages(self, store: Store) -> None:
        one, two = make_subscription(1), make_subscription(2)
        numbers = ((9, 0), (2, 1), (7, 2), (3, 3))
        messages = [make_message(number, at=later(seconds)) for number, seconds in numbers]
        for message in (messages[2], messages[0], messages[3], messages[1]):
            self.deliver(store, message, one, two)

        def walked(query: DeliveryQuery, *, newest_first: bool) -> list[Delivery]:
            found: list[Delivery] = []
            while page := store.deliveries(
                query,
                after=found[-1].id if found else None,
                limit=3,
                newest_first=newest_first,
            ):
                assert len(page) <= 3
                found += page
            return found

        every = walked(DeliveryQuery(), newest_first=False)
        assert [d.message_id for d in every[::2]] == [message.id for message in messages]
        assert [d.id for d in every] == sorted(d.id for d in every)
        assert walked(DeliveryQuery(), newest_first=True) == every[::-1]
        for query in (
            DeliveryQuery(subscription_id=two.id),
            DeliveryQuery(event="*.created", states=(PENDING,), since=later(1)),
            DeliveryQuery(until=later(3)),
            DeliveryQuery(ids=tuple(d.id for d in every[1:6])),
            DeliveryQuery(message_id=messages[1].id),
        ):
            ascending = walked(query, newest_first=False)
            assert ascending == [d for d in every if d in ascending]
            assert walked(query, newest_first=True) == ascending[::-1]
            assert len(ascending) > 1

    def test_times_of_a_query_are_the_messages(self, store: Store) -> None:
        message, subscription = make_message(at=later(10)), make_subscription()
        self.publish(store, message)
        # Routed much later than published.
        self.route(store, message, [make_delivery(message, subscription, later(500))])
        for since, until, found in (
            (later(10), None, 1),
            (later(10.001), None, 0),
            (None, later(10), 0),
            (None, later(10.001), 1),
            (later(9), later(11), 1),
            (later(499), None, 0),
        ):
            query = DeliveryQuery(since=since, until=until)
            assert len(store.deliveries(query)) == store.count(query) == found, query

    def test_a_page_begins_where_one_ended_that_is_gone(self, store: Store) -> None:
        every = self.history(store)
        store.record([self.completion(claim) for claim in self.claim(store, now=later(60))])
        page = store.deliveries(DeliveryQuery(), limit=2)
        assert store.purge(DeliveryQuery(ids=tuple(d.id for d in page)), limit=2) == 2
        rest = store.deliveries(DeliveryQuery(), after=page[-1].id)
        assert [d.id for d in rest] == [d.id for d in every[2:]]

    def test_a_finished_delivery_can_be_replayed(self, store: Store) -> None:
        every = self.history(store)
        (replayed,) = store.replay(DeliveryQuery(), now=later(5), limit=10)
        assert replayed.id == every[0].id
        assert (replayed.state, replayed.due_at) == (PENDING, later(5))
        assert (replayed.attempt_count, replayed.attempts_before) == (1, 1)
        assert (replayed.finished_at, replayed.reason) == (None, None)
        assert store.delivery(replayed.id) == replayed
        assert not store.replay(DeliveryQuery(), now=later(5), limit=10)
        claimed = self.claim(store, now=later(5), message_ids=[make_message(1).id])
        assert replayed.id in {claim.delivery.id for claim in claimed}

    def test_a_replay_takes_no_more_than_asked_for(self, store: Store) -> None:
        self.deliver(store, make_message(), *(make_subscription(n) for n in range(5)))
        store.record([self.completion(claim) for claim in self.claim(store)])
        query = DeliveryQuery(message_id=make_message().id, states=(DELIVERED,))
        assert len(store.replay(query, now=NOW, limit=3)) == 3
        assert len(store.replay(query, now=NOW, limit=3)) == 2

    def test_only_what_is_finished_is_purged(self, store: Store) -> None:
        every = self.history(store)
        assert store.purge(DeliveryQuery(), limit=10) == 1
        assert list(store.deliveries(DeliveryQuery())) == every[1:]
        assert not store.attempts([every[0].id])
        assert store.message(make_message(1).id) is not None
        store.record([self.completion(claim) for claim in self.claim(store, now=later(60))])
        assert store.purge(DeliveryQuery(), limit=2) == 2
        assert store.purge(DeliveryQuery(), limit=2) == 1
        assert store.message(make_message(1).id) is None
        assert store.message(make_message(2, at=later(60)).id) is None

    def test_messages_that_reached_nobody_are_purged(self, store: Store) -> None:
        for number, at in ((1, NOW), (2, later(60))):
            self.deliver(store, make_message(number, at=at))
        store.purge(DeliveryQuery(until=later(30)), limit=10)
        assert store.message(make_message(1).id) is None
        assert store.message(make_message(2, at=later(60)).id) is not None

    def test_deliveries_are_counted_by_any_criterion(self, store: Store) -> None:
        every = self.history(store)
        for query in (
            DeliveryQuery(),
            DeliveryQuery(event="article.*"),
            DeliveryQuery(event="*.created", states=(PENDING,)),
            DeliveryQuery(event="order.*"),
            DeliveryQuery(ids=(every[0].id, "nowhere")),
            DeliveryQuery(message_id=make_message().id),
            DeliveryQuery(subscription_id=every[0].subscription_id, since=NOW),
            DeliveryQuery(until=NOW),
        ):
            assert store.count(query) == len(store.deliveries(query)), query
