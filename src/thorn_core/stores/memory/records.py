"""The mutable records of messages and deliveries in the memory store."""

from __future__ import annotations

from datetime import datetime

import attrs

from thorn_core.values import Attempt, Delivery, DeliveryState, Message

PENDING, IN_FLIGHT = DeliveryState.PENDING, DeliveryState.IN_FLIGHT


@attrs.define(eq=False, slots=True)
class MessageRecord:
    """A message and its progress."""

    message: Message
    serial: int
    routed: bool = False
    leased_until: datetime | None = None
    deliveries: list[str] = attrs.field(factory=list)


@attrs.define(eq=False, slots=True)
class DeliveryRecord:
    """A mutable delivery; `value` returns it as an immutable one."""

    made: Delivery
    serial: int
    state: DeliveryState
    due_at: datetime
    attempt_count: int = 0
    attempts_before: int = 0
    finished_at: datetime | None = None
    reason: str | None = None
    token: str | None = None
    leased_until: datetime | None = None
    attempts: list[Attempt] = attrs.field(factory=list)

    def value(self, *, held: bool = False) -> Delivery:
        """Return the delivery in its current state.

        Args:
            held: Whether the delivery's subscription is paused.
        """
        made = self.made
        return Delivery(
            id=made.id,
            message_id=made.message_id,
            subscription_id=made.subscription_id,
            event=made.event,
            state=self.state,
            attempt_count=self.attempt_count,
            attempts_before=self.attempts_before,
            due_at=self.due_at,
            created_at=made.created_at,
            finished_at=self.finished_at,
            reason=self.reason,
            target=made.target,
            held=held and self.state is PENDING,
        )


def is_pending(delivery: DeliveryRecord, due_at: datetime) -> bool:
    """Return True if the delivery is pending until this time."""
    return delivery.state is PENDING and delivery.due_at == due_at


def is_leased(delivery: DeliveryRecord, until: datetime) -> bool:
    """Return True if the delivery's lease ends at this time."""
    return delivery.state is IN_FLIGHT and delivery.leased_until == until


def is_unrouted(kept: MessageRecord, at: datetime) -> bool:
    """Return True if the message waits for routing since this time."""
    return not kept.routed and kept.leased_until is None


def is_being_routed(kept: MessageRecord, until: datetime) -> bool:
    """Return True if the message is leased for routing until this time."""
    return not kept.routed and kept.leased_until == until
