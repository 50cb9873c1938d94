"""The contract of stores, as tests: subclass it to test one of your own."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from thorn_core.delivery import make_delivery, make_unstored_delivery
from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.retries import RetryPolicy
from thorn_core.stores.base import DeliveryQuery, Store
from thorn_core.stores.periods import Periods
from thorn_core.unit_of_work import IMMEDIATE
from thorn_core.values import (
    Attempt,
    Claim,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Routing,
    Settlement,
    Subscription,
    derived_id,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)
PENDING, DELIVERED = DeliveryState.PENDING, DeliveryState.DELIVERED


def later(seconds: float) -> datetime:
    """So many seconds after the beginning."""
    return NOW + timedelta(seconds=seconds)


def make_message(number: int = 1, **changes: Any) -> Message:
    """A message; ids go by number."""
    made = Message(id=f"msg_{number:032x}", event="article.created", data=b'{"n":1}', at=NOW)
    return attrs.evolve(made, **changes)


def make_subscription(number: int = 1, **changes: Any) -> Subscription:
    """A subscription; ids go by number, and so do recipients."""
    made = Subscription(
        id=f"sub_{number:032x}",
        events=("article.*",),
        url=f"https://r{number}.example.com/hook",
        created_at=NOW,
        updated_at=NOW,
    )
    return attrs.evolve(made, **changes)


class StoreContract:
    """What every store must do.

    Subclass it in a test module, with a `make_store` of yours; a store that others may share says
    in `reopen` how to get another handle on the same data::

        class TestMyStore(StoreContract):
            def make_store(self): return MyStore("my://")
    """

    #: Subscribers of one message in the test of a huge fan-out.
    fan_out = 100_000
    #: Bytes that routing it may take beyond what the store keeps; None doesn't measure.
    fan_out_memory: int | None = 8 * 1024 * 1024

    def make_store(self) -> Store:
        """Make an empty store."""
        return pytest.fail("a subclass makes its store here")

    def reopen(self, store: Store) -> Store:
        """Another handle on the same data, as another process has it."""
        return store

    def populate(self, store: Store, subscriptions: Iterable[Subscription]) -> None:
        """Add very many subscriptions; where one by one takes too long, override it."""
        for subscription in subscriptions:
            store.add_subscription(subscription)

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store."""
        store = self.make_store()
        yield store
        store.close()
        store.close()

    # -- what the tests do over and over

    def publish(self, store: Store, *messages: Message) -> None:
        """Publish without a transaction."""
        store.publish(messages, within=IMMEDIATE)

    def route(
        self,
        store: Store,
        message: Message,
        deliveries: Sequence[Delivery],
        *,
        complete: bool = True,
    ) -> None:
        """Route one message."""
        store.route([Routing(message=message, deliveries=deliveries, complete=complete)])

    def deliver(
        self, store: Store, message: Message, *subscriptions: Subscription
    ) -> list[Delivery]:
        """Publish a message and route it to these subscriptions."""
        self.publish(store, message)
        deliveries = [make_delivery(message, s, message.at) for s in subscriptions]
        self.route(store, message, deliveries)
        return deliveries

    def claim(self, store: Store, **changes: Any) -> list[Claim]:
        """Claim what is due."""
        arguments: dict[str, Any] = {
            "now": NOW,
            "lease": LEASE,
            "limit": 100,
            "token": "one",
            "per_recipient": 100,
            "busy": {},
            **changes,
        }
        return list(store.claim(**arguments))

    def settlement(
        self,
        claim: Claim,
        state: DeliveryState = DELIVERED,
        *,
        status: int | None = 200,
        at: datetime = NOW,
        attempt: bool = True,
        **outcome: Any,
    ) -> Settlement:
        """How a claim ended."""
        number = claim.delivery.attempt_count + 1
        made = Attempt(
            id=derived_id("att", claim.delivery.id, str(number), at.isoformat()),
            delivery_id=claim.delivery.id,
            number=number,
            at=at,
            duration=0.25,
            status=status,
        )
        return Settlement(
            claim=claim,
            outcome=Outcome(state=state, **outcome),
            attempt=made if attempt else None,
            at=at,
        )

    # -- subscriptions

    def test_a_subscription_comes_back_as_it_was(self, store: Store) -> None:
        full = make_subscription(
            events=("article.*", "user.created"),
            owner="42",
            secrets=("whsec_new", "whsec_old"),
            secret_expiry={"whsec_old": later(60)},
            content_type="application/x-www-form-urlencoded",
            hmac_digest="sha512",
            headers={"X-A": "é"},
            description="Für den Laden 🏪",
            rate_limit=0.5,
            enabled=False,
            disabled_reason="holiday",
            failing_since=later(-60),
            updated_at=later(1),
        )
        store.add_subscription(full)
        assert store.subscription(full.id) == full
        assert store.subscription("sub_none") is None

    def test_an_id_is_taken_once(self, store: Store) -> None:
        store.add_subscription(make_subscription())
        with pytest.raises(ConfigurationError, match="already"):
            store.add_subscription(make_subscription(url="https://other.example.com/"))

    def test_a_subscription_is_replaced_and_removed(self, store: Store) -> None:
        subscription = make_subscription()
        with pytest.raises(NotFoundError, match=subscription.id):
            store.save_subscription(subscription)
        store.add_subscription(subscription)
        moved = attrs.evolve(subscription, events=("user.*",), owner="7", updated_at=later(1))
        store.save_subscription(moved)
        assert store.subscription(subscription.id) == moved
        assert not self.matched(store, "article.created")
        assert self.matched(store, "user.created") == [subscription.id]
        assert store.remove_subscription(subscription.id)
        assert not store.remove_subscription(subscription.id)
        assert store.subscription(subscription.id) is None
        assert not self.matched(store, "user.created")
        assert not store.subscriptions()
        assert not store.subscriptions(owner="7")

    def test_subscriptions_are_listed_by_owner_and_paged(self, store: Store) -> None:
        for number in (3, 1, 2, 5, 4):
            store.add_subscription(make_subscription(number, owner=str(number % 2)))
        ids = [make_subscription(number).id for number in range(1, 6)]
        assert [s.id for s in store.subscriptions()] == ids
        assert [s.id for s in store.subscriptions(limit=2)] == ids[:2]
        assert [s.id for s in store.subscriptions(after=ids[1], limit=2)] == ids[2:4]
        assert [s.id for s in store.subscriptions(owner="1")] == ids[::2]
        assert [s.id for s in store.subscriptions(owner="1", after=ids[0])] == ids[2::2]
        assert not store.subscriptions(owner="none")

    def matched(self, store: Store, event: str, sender: str | None = None) -> list[str]:
        """Ids of what an event reaches."""
        return [s.id for s in store.matching(event, sender=sender, after=None, limit=100)]

    def test_matching_goes_by_pattern_each_subscription_once(self, store: Store) -> None:
        patterns = [("article.*",), ("article.created", "*"), ("user.*",), ("*.created",), ("a.*",)]
        for number, events in enumerate(patterns, 1):
            store.add_subscription(make_subscription(number, events=events))
        ids = [make_subscription(number).id for number in range(1, 6)]
        assert self.matched(store, "article.created") == [ids[0], ids[1], ids[3]]
        assert self.matched(store, "article.tag.added") == [ids[0], ids[1]]
        assert self.matched(store, "user.removed") == [ids[1], ids[2]]

    def test_matching_goes_by_owner(self, store: Store) -> None:
        for number, owner in enumerate(("ada", "bob", None), 1):
            store.add_subscription(make_subscription(number, owner=owner))
        ids = [make_subscription(number).id for number in range(1, 4)]
        assert self.matched(store, "article.created", "ada") == [ids[0], ids[2]]
        assert self.matched(store, "article.created", "eve") == [ids[2]]
        assert self.matched(store, "article.created") == ids

    def test_a_disabled_subscription_matches_nothing(self, store: Store) -> None:
        disabled = make_subscription(enabled=False)
        store.add_subscription(disabled)
        assert not self.matched(store, "article.created")
        store.save_subscription(attrs.evolve(disabled, enabled=True))
        assert self.matched(store, "article.created") == [disabled.id]
        store.save_subscription(disabled)
        assert not self.matched(store, "article.created")

    def test_matching_is_paged(self, store: Store) -> None:
        for number in range(1, 8):
            events = ("article.*",) if number % 2 else ("article.created", "*")
            store.add_subscription(make_subscription(number, events=events))
        found: list[str] = []
        while page := store.matching(
            "article.created", sender=None, after=found[-1] if found else None, limit=3
        ):
            assert len(page) <= 3
            found += [subscription.id for subscription in page]
        assert found == [make_subscription(number).id for number in range(1, 8)]

    def test_several_messages_are_matched_at_once(self, store: Store) -> None:
        for number, owner in enumerate(("ada", "bob", None), 1):
            store.add_subscription(make_subscription(number, owner=owner))
        store.add_subscription(make_subscription(4, events=("user.created", "*"), owner="ada"))
        ids = [make_subscription(number).id for number in range(1, 5)]
        messages = [
            make_message(1),
            make_message(2, sender="ada"),
            make_message(3, sender="eve"),
            make_message(4, event="user.created", sender="ada"),
            make_message(5, event="user.created", sender="bob"),
            make_message(6, event="user.created"),
        ]
        found: list[list[str]] = []
        while len(found) < len(messages):
            pages = store.matching_each(messages[len(found) :], limit=100)
            assert pages
            found += [[s.id for s in page] for page in pages]
        assert found == [ids, [ids[0], ids[2], ids[3]], [ids[2]], [ids[3]], [], [ids[3]]]

    def test_the_first_pages_of_several_messages_are_bounded(self, store: Store) -> None:
        for number in range(1, 8):
            store.add_subscription(make_subscription(number))
        messages = [make_message(number) for number in range(1, 4)]
        pages = store.matching_each(messages, limit=5)
        assert [s.id for s in pages[0]] == [make_subscription(n).id for n in range(1, 6)]
        assert sum(len(page) for page in pages) < 15
        rest = store.matching_each(messages[len(pages) :], limit=5)
        assert [s.id for s in rest[0]] == [s.id for s in pages[0]]

    # -- messages

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

    def test_routing_again_writes_nothing_twice(self, store: Store) -> None:
        message, subscription = make_message(), make_subscription()
        store.add_subscription(subscription)
        self.publish(store, message)
        delivery = make_delivery(message, subscription, NOW)
        self.route(store, message, [delivery], complete=False)
        assert not store.routed(message.id)
        (claim,) = self.claim(store)
        store.settle([self.settlement(claim)])
        self.route(store, message, [delivery])
        (kept,) = store.deliveries(DeliveryQuery(message_id=message.id))
        assert (kept.state, kept.attempt_count) == (DELIVERED, 1)
        assert not self.claim(store)

    def test_a_huge_fan_out_is_routed_in_chunks(self, store: Store) -> None:
        self.populate(store, (make_subscription(number) for number in range(self.fan_out)))
        message = make_message()
        self.publish(store, message)
        after, routed, peak = None, 0, 0
        # Of the last chunks, where it would be the most: measuring takes several times as long.
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

    # -- claims

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
        store.remove_subscription(subscription.id)
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

    def test_recipients_take_turns(self, store: Store) -> None:
        crowd, loner = make_subscription(1), make_subscription(2)
        for number in range(200):
            self.deliver(store, make_message(number), crowd)
        self.deliver(store, make_message(999), loner)
        claimed = self.claim(store, limit=10)
        assert {c.delivery.recipient for c in claimed} == {
            "r1.example.com:443",
            "r2.example.com:443",
        }
        assert len(claimed) == 10

    def test_the_oldest_of_a_recipient_comes_first(self, store: Store) -> None:
        for number in (3, 1, 2):
            self.deliver(store, make_message(number, at=later(-10 + number)), make_subscription())
        ids = [claim.message.id for claim in self.claim(store, limit=2)]
        assert ids == [make_message(1).id, make_message(2).id]

    def test_a_recipient_gets_no_more_at_once_than_it_may(self, store: Store) -> None:
        for number in range(5):
            self.deliver(store, make_message(number), make_subscription(1), make_subscription(2))
        busy = {"r1.example.com:443": 2, "r2.example.com:443": 9}
        claimed = self.claim(store, per_recipient=3, busy=busy)
        assert [c.delivery.recipient for c in claimed] == ["r1.example.com:443"]
        assert len(self.claim(store, per_recipient=4, busy={})) == 8

    def test_deliveries_can_be_claimed_by_message(self, store: Store) -> None:
        for number in range(3):
            self.deliver(store, make_message(number), make_subscription(1), make_subscription(2))
        ids = [make_message(1).id, "msg_none"]
        claimed = self.claim(store, message_ids=ids, per_recipient=1)
        assert [c.message.id for c in claimed] == ids[:1] * 2
        assert not self.claim(store, message_ids=ids)
        assert len(self.claim(store)) == 4
        self.deliver(store, make_message(9, at=later(5)), make_subscription(1))
        assert not self.claim(store, message_ids=[make_message(9).id])
        assert not self.claim(store, now=later(5), message_ids=[make_message(9).id], limit=0)
        assert len(self.claim(store, now=later(5), message_ids=[make_message(9).id])) == 1

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

    # -- settling

    def test_a_delivered_one_is_settled_with_its_attempt(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        settlement = self.settlement(claim, at=later(1))
        assert list(store.settle([settlement])) == []
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count, kept.settled_at) == (DELIVERED, 1, later(1))
        assert list(store.attempts([kept.id])) == [settlement.attempt]
        assert not self.claim(store, now=later(1000))

    def test_an_attempt_comes_back_as_it_was(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        settlement = self.settlement(claim, PENDING, due_at=later(5))
        assert settlement.attempt is not None
        full = attrs.evolve(
            settlement.attempt,
            duration=1.5,
            status=None,
            headers={"content-type": "text/plain"},
            body=b"\x00\xff",
            error="no response in time",
            timed_out=True,
        )
        store.settle([attrs.evolve(settlement, attempt=full)])
        assert list(store.attempts([claim.delivery.id])) == [full]

    def test_a_retry_waits_until_it_is_due(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        store.settle([self.settlement(claim, PENDING, status=500, due_at=later(5), reason="500")])
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.due_at, kept.reason) == (PENDING, later(5), "500")
        assert (kept.attempt_count, kept.settled_at) == (1, None)
        assert not self.claim(store, now=later(4))
        (again,) = self.claim(store, now=later(5))
        assert again.delivery.attempt_count == 1

    @pytest.mark.parametrize("state", [DeliveryState.EXHAUSTED, DeliveryState.DISCARDED])
    def test_a_final_state_is_final(self, store: Store, state: DeliveryState) -> None:
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        store.settle([self.settlement(claim, state, attempt=False, reason="why")])
        kept = store.delivery(claim.delivery.id)
        assert kept is not None
        assert (kept.state, kept.reason, kept.attempt_count) == (state, "why", 0)
        assert not self.claim(store, now=later(1000))
        assert not store.attempts([kept.id])

    def test_a_late_settlement_is_history_only(self, store: Store) -> None:
        self.deliver(store, make_message(), make_subscription())
        (first,) = self.claim(store)
        (second,) = self.claim(store, now=later(60), token="two")
        store.settle([self.settlement(first, DeliveryState.EXHAUSTED, status=500, at=later(61))])
        kept = store.delivery(first.delivery.id)
        assert kept is not None
        assert kept.state is DeliveryState.IN_FLIGHT
        store.settle([self.settlement(second, at=later(62))])
        kept = store.delivery(first.delivery.id)
        assert kept is not None
        assert (kept.state, kept.attempt_count) == (DELIVERED, 2)
        assert len(store.attempts([kept.id])) == 2

    def test_a_paused_recipient_is_left_alone(self, store: Store) -> None:
        mine, other = make_subscription(1), make_subscription(2)
        self.deliver(store, make_message(1), mine)
        (claim,) = self.claim(store)
        pause: dict[str, Any] = {"due_at": later(5), "pause_until": later(30)}
        store.settle([self.settlement(claim, PENDING, status=429, **pause)])
        self.deliver(store, make_message(2), mine, other)
        assert [c.delivery.recipient for c in self.claim(store, now=later(10))] == [
            "r2.example.com:443"
        ]
        assert not self.claim(store, now=later(29), message_ids=[make_message(2).id])
        assert len(self.claim(store, now=later(30))) == 2

    def test_of_two_pauses_the_later_holds(self, store: Store) -> None:
        for number in (1, 2):
            self.deliver(store, make_message(number), make_subscription())
        claims = self.claim(store)
        ends = (later(60), later(20))
        store.settle(
            [
                self.settlement(claim, PENDING, status=429, due_at=later(1), pause_until=end)
                for claim, end in zip(claims, ends, strict=True)
            ]
        )
        assert not self.claim(store, now=later(59))
        assert len(self.claim(store, now=later(60))) == 2

    def test_a_subscription_knows_since_when_it_fails(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)

        def settle(number: int, status: int, at: datetime) -> datetime | None:
            self.deliver(store, make_message(number), subscription)
            (claim,) = self.claim(store, now=at)
            store.settle([self.settlement(claim, DELIVERED, status=status, at=at)])
            kept = store.subscription(subscription.id)
            assert kept is not None
            return kept.failing_since

        assert settle(1, 500, later(1)) == later(1)
        assert settle(2, 500, later(2)) == later(1)
        assert settle(3, 200, later(3)) is None
        assert settle(4, 200, later(4)) is None

    def test_a_subscription_is_disabled_once(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        for number in (1, 2):
            self.deliver(store, make_message(number), subscription)
        settlements = [
            self.settlement(claim, DeliveryState.DISCARDED, status=410, disable="gone")
            for claim in self.claim(store)
        ]
        (disabled,) = store.settle(settlements)
        assert store.subscription(subscription.id) == disabled
        assert (disabled.enabled, disabled.disabled_reason) == (False, "gone")
        assert not self.matched(store, "article.created")

    def test_an_unstored_subscription_is_not_disabled(self, store: Store) -> None:
        message = make_message()
        self.publish(store, message)
        self.route(store, message, [make_unstored_delivery(message, make_subscription(), NOW)])
        (claim,) = self.claim(store)
        settlement = self.settlement(claim, DeliveryState.DISCARDED, status=410, disable="gone")
        assert not store.settle([settlement])

    def test_what_comes_next_is_foreseen(self, store: Store) -> None:
        if store.shared:
            pytest.skip("others may change it at any time")
        assert store.next_due(NOW) is None
        self.deliver(store, make_message(at=later(10)), make_subscription())
        assert store.next_due(NOW) == later(10)
        (claim,) = self.claim(store, now=later(10))
        assert store.next_due(later(10)) == later(70)
        store.settle([self.settlement(claim, PENDING, status=500, due_at=later(20))])
        assert store.next_due(later(10)) == later(20)

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

    # -- history

    def history(self, store: Store) -> list[Delivery]:
        """Four deliveries: two messages to two subscriptions; the first one delivered."""
        one, two = make_subscription(1), make_subscription(2)
        self.deliver(store, make_message(1), one, two)
        self.deliver(store, make_message(2, event="user.created", at=later(60)), one, two)
        (claim,) = self.claim(store, limit=1)
        store.settle([self.settlement(claim)])
        return list(store.deliveries(DeliveryQuery()))

    def test_deliveries_are_found_by_any_criterion(self, store: Store) -> None:
        every = self.history(store)
        assert len(every) == 4
        assert [d.place for d in every] == sorted(d.place for d in every)

        def found(**criteria: Any) -> list[int]:
            got = store.deliveries(DeliveryQuery(**criteria))
            return [every.index(delivery) for delivery in got]

        assert found(ids=(every[2].id, every[0].id, "dlv_none")) == [0, 2]
        assert found(message_id=make_message(2).id) == [2, 3]
        assert found(message_id="msg_none") == []
        assert found(subscription_id=make_subscription(1).id) == [0, 2]
        assert found(event="user.*") == [2, 3]
        assert found(states=(DELIVERED,)) == [0]
        assert found(states=(PENDING, DELIVERED), event="article.created") == [0, 1]
        assert found(since=later(60)) == [2, 3]
        assert found(until=later(60)) == [0, 1]
        assert found(subscription_id=make_subscription(2).id, message_id=make_message(1).id) == [1]

    def test_deliveries_and_attempts_are_paged(self, store: Store) -> None:
        every = self.history(store)
        assert list(store.deliveries(DeliveryQuery(), limit=3)) == every[:3]
        assert list(store.deliveries(DeliveryQuery(), after=every[1].place, limit=1)) == [every[2]]
        for seconds in (70, 140, 210):
            claims = self.claim(
                store, now=later(seconds), limit=1, message_ids=[make_message(1).id]
            )
            settlement = self.settlement(
                claims[0], PENDING, status=500, at=later(seconds), due_at=later(seconds)
            )
            store.settle([settlement])
        ids = [delivery.id for delivery in every]
        attempts = store.attempts(ids)
        assert len(attempts) == 4
        assert list(store.attempts(ids, after=attempts[1].id, limit=1)) == [attempts[2]]
        assert not store.attempts([])

    def test_deliveries_come_by_age_whatever_their_ids_say(self, store: Store) -> None:
        one, two = make_subscription(1), make_subscription(2)
        # An idempotency key makes ids that tell no time.
        for number, seconds in ((9, 0), (2, 1), (7, 2), (3, 3)):
            self.deliver(store, make_message(number, at=later(seconds)), one, two)
        oldest_first = [make_message(number).id for number in (9, 2, 7, 3)]

        def walked(query: DeliveryQuery, *, newest_first: bool) -> list[Delivery]:
            found: list[Delivery] = []
            while page := store.deliveries(
                query,
                after=found[-1].place if found else None,
                limit=3,
                newest_first=newest_first,
            ):
                assert len(page) <= 3
                found += page
            return found

        every = walked(DeliveryQuery(), newest_first=False)
        assert [d.message_id for d in every[::2]] == oldest_first
        assert [d.place for d in every] == sorted(d.place for d in every)
        assert walked(DeliveryQuery(), newest_first=True) == every[::-1]
        for query in (
            DeliveryQuery(subscription_id=two.id),
            DeliveryQuery(event="*.created", states=(PENDING,), since=later(1)),
            DeliveryQuery(until=later(3)),
            DeliveryQuery(ids=tuple(d.id for d in every[1:6])),
            DeliveryQuery(message_id=oldest_first[1]),
        ):
            ascending = walked(query, newest_first=False)
            assert ascending == [d for d in every if d in ascending]
            assert walked(query, newest_first=True) == ascending[::-1]
            assert len(ascending) > 1

    def test_a_page_begins_where_one_ended_that_is_gone(self, store: Store) -> None:
        every = self.history(store)
        store.settle([self.settlement(claim) for claim in self.claim(store, now=later(60))])
        page = store.deliveries(DeliveryQuery(), limit=2)
        assert store.purge(DeliveryQuery(ids=tuple(d.id for d in page)), limit=2) == 2
        rest = store.deliveries(DeliveryQuery(), after=page[-1].place)
        assert [d.id for d in rest] == [d.id for d in every[2:]]

    def test_a_settled_delivery_can_be_replayed(self, store: Store) -> None:
        every = self.history(store)
        (replayed,) = store.replay(DeliveryQuery(), now=later(5), limit=10)
        assert replayed.id == every[0].id
        assert (replayed.state, replayed.due_at) == (PENDING, later(5))
        assert (replayed.attempt_count, replayed.attempts_before) == (1, 1)
        assert (replayed.settled_at, replayed.reason) == (None, None)
        assert store.delivery(replayed.id) == replayed
        assert not store.replay(DeliveryQuery(), now=later(5), limit=10)
        claimed = self.claim(store, now=later(5), message_ids=[make_message(1).id])
        assert replayed.id in {claim.delivery.id for claim in claimed}

    def test_a_replay_takes_no_more_than_asked_for(self, store: Store) -> None:
        self.deliver(store, make_message(), *(make_subscription(n) for n in range(5)))
        store.settle([self.settlement(claim) for claim in self.claim(store)])
        query = DeliveryQuery(message_id=make_message().id, states=(DELIVERED,))
        assert len(store.replay(query, now=NOW, limit=3)) == 3
        assert len(store.replay(query, now=NOW, limit=3)) == 2

    def test_only_what_is_settled_is_purged(self, store: Store) -> None:
        every = self.history(store)
        assert store.purge(DeliveryQuery(), limit=10) == 1
        assert list(store.deliveries(DeliveryQuery())) == every[1:]
        assert not store.attempts([every[0].id])
        assert store.message(make_message(1).id) is not None
        store.settle([self.settlement(claim) for claim in self.claim(store, now=later(60))])
        assert store.purge(DeliveryQuery(), limit=2) == 2
        assert store.purge(DeliveryQuery(), limit=2) == 1
        assert store.message(make_message(1).id) is None
        assert store.message(make_message(2).id) is None

    def test_messages_that_reached_nobody_are_purged(self, store: Store) -> None:
        for number, at in ((1, NOW), (2, later(60))):
            self.deliver(store, make_message(number, at=at))
        store.purge(DeliveryQuery(until=later(30)), limit=10)
        assert store.message(make_message(1).id) is None
        assert store.message(make_message(2).id) is not None

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

    def test_a_store_at_work_is_ready(self, store: Store) -> None:
        store.check()

    def test_stats_count(self, store: Store) -> None:
        store.add_subscription(make_subscription())
        self.history(store)
        self.publish(store, make_message(3))
        stats = store.stats(now=later(1), window=timedelta(minutes=1))
        assert (stats.subscriptions, stats.messages, stats.unrouted) == (1, 3, 1)
        assert stats.deliveries[PENDING] == 3
        assert stats.deliveries[DELIVERED] == 1
        assert (stats.attempts, stats.latency) == (1, {50: 0.25, 95: 0.25, 99: 0.25})
        assert stats.recipients == {"r1.example.com:443": stats.latency}
        assert (stats.failed, stats.due_since) == (0, NOW)
        assert store.stats(now=later(3600), window=timedelta(minutes=1)).attempts == 0

    def test_stats_tell_failures_and_what_waits_the_longest(self, store: Store) -> None:
        window = timedelta(minutes=1)
        assert store.stats(now=NOW, window=window).due_since is None
        self.deliver(store, make_message(), make_subscription())
        (claim,) = self.claim(store)
        failed = self.settlement(claim, PENDING, status=500, due_at=later(30))
        store.settle([failed])
        stats = store.stats(now=later(1), window=window)
        assert (stats.attempts, stats.failed, stats.due_since) == (1, 1, None)
        assert store.stats(now=later(90), window=window).due_since == later(30)
        self.publish(store, make_message(2, at=later(20)))
        assert store.stats(now=later(90), window=window).due_since == later(20)

    def test_periods_tell_how_one_subscriptions_deliveries_went(self, store: Store) -> None:
        mine, other = make_subscription(), make_subscription(2)
        for number, seconds in enumerate((-0.000001, 0, 59.999999, 60, 120), 1):
            self.deliver(store, make_message(number, at=later(seconds)), mine, other)
        claims = self.claim(store, now=later(600))
        mines = [c for c in claims if c.delivery.subscription_id == mine.id]
        before, first, last, second, after = sorted(mines, key=lambda c: c.delivery.id)
        store.settle(
            [
                self.settlement(before, at=later(0)),
                self.settlement(first, at=later(0)),
                self.settlement(last, PENDING, status=500, at=later(59.9), due_at=later(90)),
                self.settlement(second, DeliveryState.DISCARDED, status=410, at=later(119)),
                self.settlement(after, at=later(121)),
                *(self.settlement(c, at=later(1)) for c in claims if c not in mines),
            ]
        )
        # Tried again in the next period, without an answer, and once more after the last one.
        for status, seconds in ((None, 90), (500, 120)):
            (again,) = self.claim(store, now=later(600))
            slow = self.settlement(again, PENDING, status=status, at=later(seconds), due_at=NOW)
            assert slow.attempt is not None
            slow = attrs.evolve(slow, attempt=attrs.evolve(slow.attempt, duration=15.0))
            store.settle([slow])
        asked = Periods(
            subscription_id=mine.id, since=NOW, step=timedelta(seconds=60), number=2, limit=100
        )
        one, two = store.periods(asked)
        assert (one.at, two.at) == (NOW, later(60))
        assert {k: n for k, n in one.deliveries.items() if n} == {DELIVERED: 1, PENDING: 1}
        assert {k: n for k, n in two.deliveries.items() if n} == {DeliveryState.DISCARDED: 1}
        assert one.latency == two.latency == {50: 0.25, 95: 0.25, 99: 0.25}
        nobody = store.periods(attrs.evolve(asked, subscription_id="sub_nobody"))
        assert [(dict(each.deliveries), each.latency) for each in nobody] == [({}, {})] * 2

    def test_periods_are_counted_from_the_newest_deliveries_only(self, store: Store) -> None:
        mine = make_subscription()
        for number in range(1, 5):
            self.deliver(store, make_message(number, at=later(number)), mine)
        asked = Periods(
            subscription_id=mine.id, since=NOW, step=timedelta(seconds=2), number=3, limit=3
        )
        found = [sum(each.deliveries.values()) for each in store.periods(asked)]
        assert found == [0, 2, 1]
        enough = attrs.evolve(asked, limit=4)
        assert [sum(each.deliveries.values()) for each in store.periods(enough)] == [1, 2, 1]

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
