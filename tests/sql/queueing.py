"""The queue on a database, with deliveries to recipients of a test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from thorn_core.keys import attempt_id, delivery_id, delivery_key, message_key
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.queue import Queue
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.recording import Recording
from thorn_core.stores.sql.rows import delivery_row, message_of, message_row, micros
from thorn_core.stores.sql.schema import DELIVERIES, MESSAGES
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

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MESSAGE_COLUMNS = ", ".join(MESSAGES.names)
READ_MESSAGES = f"SELECT {MESSAGE_COLUMNS} FROM $messages WHERE id IN (:keys.key*)"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def message(number: int, at: datetime = NOW) -> Message:
    return Message(id=f"msg_{number:032x}", event="order.paid", data=b"{}", at=at)


def subscription(number: int, **changes: Any) -> Subscription:
    values = {"events": ("*",), "url": f"https://r{number}.example.com/"}
    values |= {"created_at": NOW, "updated_at": NOW, **changes}
    return Subscription(id=f"sub_{number}", **values)


class ReadMessages:
    """The messages of claims."""

    def get_many(self, statements, keys):
        rows = statements.rows(READ_MESSAGES, keys=sorted(keys))
        return {row[0]: message_of(row) for row in rows}


class NoSubscriptions:
    """Nothing is stored, and nothing judged."""

    def get_many(self, statements, ids):
        return {}

    def judge(self, statements, completions):
        return []


class Queued:
    """A queue, and what it holds."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.recipients = Recipients()
        self.queue = Queue(self.recipients, ReadMessages(), NoSubscriptions())
        self.recording = Recording(self.recipients, NoSubscriptions())

    def deliver(self, sent: Message, *to: Subscription) -> list[Delivery]:
        """Insert a message, and deliveries of it that are due at its time."""
        made = [
            Delivery(
                id=delivery_id(sent.id, each.id),
                message_id=sent.id,
                subscription_id=each.id,
                event=sent.event,
                due_at=sent.at,
                created_at=sent.at,
            )
            for each in to
        ]

        def work(statements):
            statements.insert(MESSAGES, [message_row(sent)], ignoring=True)
            self.recipients.known(statements, to)
            statements.insert(DELIVERIES, [delivery_row(each) for each in made])
            due = [(delivery_key(each.id), micros(each.due_at)) for each in made]
            self.queue.add(statements, due)

        self.database.run(work)
        return made

    def claim(self, now: datetime = NOW, **changes: Any) -> list[Claim]:
        values: dict[str, Any] = {"limit": 100, "token": "one", "per_recipient": 100, "busy": {}}
        values |= {"now": micros(now), "until": micros(now + timedelta(seconds=60)), **changes}
        return self.database.run(lambda statements: self.queue.claim(statements, **values))

    def record(self, *completions: Completion) -> None:
        self.database.run(lambda statements: self.recording.record(statements, completions))

    def row(self, delivery: Delivery) -> dict[str, Any] | None:
        """The delivery's row."""
        text = f"SELECT {', '.join(DELIVERIES.names)} FROM $deliveries WHERE id = :id.key"
        found = self.database.read(lambda s: s.first(text, id=delivery_key(delivery.id)))
        return None if found is None else dict(zip(DELIVERIES.names, found, strict=True))

    def value(self, text: str, **values: Any) -> Any:
        found = self.database.read(lambda statements: statements.first(text, **values))
        return None if found is None else found[0]


def ended(
    claim: Claim,
    state: DeliveryState = DeliveryState.DELIVERED,
    *,
    at: datetime = NOW,
    attempted: bool = True,
    **outcome: Any,
) -> Completion:
    """How a claim ended."""
    number = claim.delivery.attempt_count + 1
    attempt = Attempt(
        id=attempt_id(claim.delivery.id, at),
        delivery_id=claim.delivery.id,
        number=number,
        at=at,
        duration=0.25,
        status=200,
    )
    return Completion(
        claim=claim,
        outcome=Outcome(state=state, **outcome),
        attempt=attempt if attempted else None,
        at=at,
    )


def key_of(sent: Message) -> bytes:
    key = message_key(sent.id)
    assert key is not None
    return key
