"""The parts of a store on a database, and what tests of them do over and over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from thorn_core import keys
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.history import History
from thorn_core.stores.sql.queue import Queue
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.recording import Recording
from thorn_core.stores.sql.rows import attempt_row, delivery_row, message_of, message_row, micros
from thorn_core.stores.sql.schema import ATTEMPTS, DELIVERIES, IDEMPOTENCY, MESSAGES, OUTBOX
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.subscriptions import Subscriptions
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Subscription,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
PENDING, IN_FLIGHT = DeliveryState.PENDING, DeliveryState.IN_FLIGHT
DELIVERED, FAILED = DeliveryState.DELIVERED, DeliveryState.FAILED


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def message(number: int = 1, seconds: float = 0, **changes: Any) -> Message:
    """A message whose id tells its time, and behind that its number."""
    at = later(seconds)
    key = keys.first_key(at)[:6] + number.to_bytes(10, "big")
    made = Message(id=keys.message_id(key), event="article.created", data=b'{"n":1}', at=at)
    return attrs.evolve(made, **changes)


def subscription(number: int = 1, **changes: Any) -> Subscription:
    made = Subscription(
        id=f"sub_{number:032x}",
        events=("article.*",),
        url=f"https://r{number}.example.com/hook",
        created_at=NOW,
        updated_at=NOW,
    )
    return attrs.evolve(made, **changes)


def delivery(of: Message, to: Subscription, **changes: Any) -> Delivery:
    made = Delivery(
        id=keys.delivery_id(of.id, to.id),
        message_id=of.id,
        subscription_id=to.id,
        event=of.event,
        due_at=of.at,
        created_at=of.at,
    )
    made = attrs.evolve(made, **changes)
    return attrs.evolve(made, finished_at=of.at) if made.state.finished else made


def attempt(of: Delivery, at: datetime, *, status: int | None = 200, duration: float = 0.25):
    made = keys.attempt_id(of.id, at)
    return Attempt(id=made, delivery_id=of.id, number=1, at=at, duration=duration, status=status)


class Messages:
    """Messages by key."""

    def get_many(self, statements: Statements, wanted: Iterable[bytes]) -> dict[bytes, Message]:
        names = ", ".join(MESSAGES.names)
        text = f"SELECT {names} FROM $messages WHERE id IN (:ids.key*)"
        return {row[0]: message_of(row) for row in statements.rows(text, ids=sorted(wanted))}


class Parts:
    """The parts of a store on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.run, self.read = database.run, database.read
        self.recipients = Recipients()
        self.subscriptions = Subscriptions(self.recipients)
        self.queue = Queue(self.recipients, Messages(), self.subscriptions)
        self.recording = Recording(self.recipients, self.subscriptions)
        self.history = History(self.queue)

    def publish(self, *messages: Message) -> None:
        """Keep messages that aren't routed."""

        def work(statements: Statements) -> None:
            statements.insert(MESSAGES, [message_row(each) for each in messages])
            rows = [(message_row(each)[0], 0, 0, None, None, None, 0) for each in messages]
            statements.insert(OUTBOX, rows)
            keyed = [
                (each.idempotency, message_row(each)[0], micros(each.at))
                for each in messages
                if each.idempotency is not None
            ]
            statements.insert(IDEMPOTENCY, keyed)

        self.run(work)

    def route(self, of: Message, *to: Subscription) -> list[Delivery]:
        """Make the deliveries of a message that was published."""
        made = [delivery(of, each) for each in to]

        def work(statements: Statements) -> None:
            self.recipients.known(statements, to)
            statements.insert(DELIVERIES, [delivery_row(each) for each in made])
            self.queue.add(
                statements, [(keys.delivery_key(each.id), micros(each.due_at)) for each in made]
            )
            key = keys.message_key(of.id)
            statements.change("DELETE FROM $outbox WHERE message_id = :id.key", id=key)

        self.run(work)
        return sorted(made, key=lambda each: each.id)

    def deliver(self, of: Message, *to: Subscription) -> list[Delivery]:
        self.publish(of)
        return self.route(of, *to)

    def claim(self, now: datetime = NOW, limit: int = 100, **changes: Any) -> list[Claim]:
        arguments: dict[str, Any] = {
            "now": micros(now),
            "until": micros(now + timedelta(seconds=60)),
            "limit": limit,
            "token": "one",
            "per_recipient": 100,
            "busy": {},
            **changes,
        }
        return self.run(lambda s: self.queue.claim(s, **arguments))

    def record(self, *completions: Completion) -> list[Subscription]:
        return self.run(lambda s: self.recording.record(s, completions))

    def fill(self, rows: Sequence[tuple[Message, Sequence[Delivery]]]) -> None:
        """Insert very many messages and deliveries, finished ones with an attempt each."""

        def work(statements: Statements) -> None:
            statements.insert_fast(MESSAGES, [message_row(each) for each, _ in rows])
            made = [each for _, some in rows for each in some]
            statements.insert_fast(DELIVERIES, [delivery_row(each) for each in made])
            tried = [attempt(each, each.created_at) for each in made if each.state.finished]
            statements.insert_fast(ATTEMPTS, [attempt_row(each) for each in tried])

        self.run(work)


def completion(
    claim: Claim,
    state: DeliveryState = DELIVERED,
    *,
    status: int | None = 200,
    at: datetime = NOW,
    duration: float = 0.25,
    **outcome: Any,
) -> Completion:
    """How a claim ended."""
    return Completion(
        claim=claim,
        outcome=Outcome(state=state, **outcome),
        attempt=attempt(claim.delivery, at, status=status, duration=duration),
        at=at,
    )
