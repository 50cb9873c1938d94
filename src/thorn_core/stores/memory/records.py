"""What the memory store keeps of a message and of a delivery, as they change."""

from __future__ import annotations

from datetime import datetime

import attrs

from thorn_core.values import Attempt, Delivery, DeliveryState, Message

PENDING, IN_FLIGHT = DeliveryState.PENDING, DeliveryState.IN_FLIGHT


@attrs.define(eq=False, slots=True)
class MessageRecord:
    """A message, and how far it has come."""

    message: Message
    serial: int
    routed: bool = False
    leased_until: datetime | None = None
    deliveries: list[str] = attrs.field(factory=list)


@attrs.define(eq=False, slots=True)
class DeliveryRecord:
    """A delivery as it changes; the frozen value is made when it is asked for."""

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
        """The delivery as it stands.

        Args:
            held: Whether its subscription is paused.
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
    """It waits for this time."""
    return delivery.state is PENDING and delivery.due_at == due_at


def is_leased(delivery: DeliveryRecord, until: datetime) -> bool:
    """Its lease ends at this time."""
    return delivery.state is IN_FLIGHT and delivery.leased_until == until


def is_unrouted(kept: MessageRecord, at: datetime) -> bool:
    """It waits to be routed."""
    return not kept.routed and kept.leased_until is None


def is_being_routed(kept: MessageRecord, until: datetime) -> bool:
    """It is leased for routing until this time."""
    return not kept.routed and kept.leased_until == until
