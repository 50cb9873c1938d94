"""Shared set-up and steps of the tests of the store contract."""

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
    """Return a time some seconds after the start."""
    return NOW + timedelta(seconds=seconds)


def make_message(number: int = 1, *, at: datetime = NOW, **changes: Any) -> Message:
    """Return a message; ids sort by time, then by number."""
    key = first_key(at)[:6] + number.to_bytes(10, "big")
    made = Message(id=message_id(key), event="article.created", data=b'{"n":1}', at=at)
    return attrs.evolve(made, **changes)


def make_subscription(number: int = 1, **changes: Any) -> Subscription:
    """Return a subscription; its id and recipient depend on the number."""
    made = Subscription(
        id=f"sub_{number:032x}",
        events=("article.*",),
        url=f"https://r{number}.example.com/hook",
        created_at=NOW,
        updated_at=NOW,
    )
    return attrs.evolve(made, **changes)


class StoreSteps:
    """A store under test, and steps that tests share."""

    #: The number of subscribers of one message in the test of a huge fan-out.
    fan_out = 100_000
    #: The maximum memory in bytes for routing that message, beyond the store's own data; None skips
    #: the measurement.
    fan_out_memory: int | None = 8 * 1024 * 1024

    def make_store(self) -> Store:
        """Create an empty store."""
        return pytest.fail("a subclass makes its store here")

    def reopen(self, store: Store) -> Store:
        """Return another handle on the same data, like another process has."""
        return store

    def populate(self, store: Store, subscriptions: Iterable[Subscription]) -> None:
        """Add very many subscriptions; override it if adding them one by one takes too long."""
        for subscription in subscriptions:
            store.add_subscription(subscription)

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """Yield an empty store."""
        store = self.make_store()
        yield store
        store.close()
        store.close()

    def publish(self, store: Store, *messages: Message) -> None:
        """Publish messages without a transaction."""
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
        """Claim due deliveries."""
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
        """Return the completion of a claim."""
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
        """Return the ids of the subscriptions that match an event."""
        return [s.id for s in store.matching(event, sender=sender, after=None, limit=100)]

    def history(self, store: Store) -> list[Delivery]:
        """Create four deliveries, two messages to two subscriptions, and deliver the first.

        A message's deliveries sort in the order of the subscriptions, by key.
        """
        one, two = make_subscription(1), make_subscription(3)
        self.deliver(store, make_message(1), one, two)
        self.deliver(store, make_message(2, event="user.created", at=later(60)), one, two)
        (claim,) = self.claim(store, limit=1, busy={two.id: 100})
        store.record([self.completion(claim)])
        return list(store.deliveries(DeliveryQuery()))
