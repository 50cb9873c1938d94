"""What the tests of the contract of stores begin with, and do over and over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from thorn_core.delivery import make_delivery
from thorn_core.keys import attempt_id, first_key, message_id
from thorn_core.ports.store import Store
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.queries import DeliveryQuery
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Routing,
    Subscription,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)
PENDING, DELIVERED = DeliveryState.PENDING, DeliveryState.DELIVERED


def later(seconds: float) -> datetime:
    """So many seconds after the beginning."""
    return NOW + timedelta(seconds=seconds)


def make_message(number: int = 1, *, at: datetime = NOW, **changes: Any) -> Message:
    """A message; ids go by time, then by number."""
    key = first_key(at)[:6] + number.to_bytes(10, "big")
    made = Message(id=message_id(key), event="article.created", data=b'{"n":1}', at=at)
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


class StoreSteps:
    """A store to test, and the steps that tests of it share."""

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

    def completion(
        self,
        claim: Claim,
        state: DeliveryState = DELIVERED,
        *,
        status: int | None = 200,
        at: datetime = NOW,
        attempt: bool = True,
        **outcome: Any,
    ) -> Completion:
        """How a claim ended."""
        made = Attempt(
            id=attempt_id(claim.delivery.id, at),
            delivery_id=claim.delivery.id,
            number=claim.delivery.attempt_count + 1,
            at=at,
            duration=0.25,
            status=status,
        )
        return Completion(
            claim=claim,
            outcome=Outcome(state=state, **outcome),
            attempt=made if attempt else None,
            at=at,
        )

    def matched(self, store: Store, event: str, sender: str | None = None) -> list[str]:
        """Ids of what an event reaches."""
        return [s.id for s in store.matching(event, sender=sender, after=None, limit=100)]

    def history(self, store: Store) -> list[Delivery]:
        """Four deliveries: two messages to two subscriptions; the first one delivered.

        Those of a message come in the order of the subscriptions: their keys tell it.
        """
        one, two = make_subscription(1), make_subscription(3)
        self.deliver(store, make_message(1), one, two)
        self.deliver(store, make_message(2, event="user.created", at=later(60)), one, two)
        (claim,) = self.claim(store, limit=1, busy={two.id: 100})
        store.record([self.completion(claim)])
        return list(store.deliveries(DeliveryQuery()))
