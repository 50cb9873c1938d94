"""Create deliveries from messages and subscriptions."""

from __future__ import annotations

from datetime import datetime

import attrs

from thorn_core.keys import delivery_id
from thorn_core.values import Delivery, DeliveryState, Message, Subscription


def make_delivery(message: Message, subscription: Subscription, at: datetime) -> Delivery:
    """Create the delivery of a message to a stored subscription, due since the message was sent.

    Args:
        message: The message.
        subscription: The subscription.
        at: The time of routing.
    """
    return Delivery(
        id=delivery_id(message.id, subscription.id),
        message_id=message.id,
        subscription_id=subscription.id,
        event=message.event,
        due_at=min(message.at, at),
        created_at=at,
    )


def in_flight(delivery: Delivery) -> Delivery:
    """Return a new delivery as a worker attempts it."""
    # attrs.evolve takes twice as long.
    return Delivery(
        id=delivery.id,
        message_id=delivery.message_id,
        subscription_id=delivery.subscription_id,
        event=delivery.event,
        state=DeliveryState.IN_FLIGHT,
        due_at=delivery.due_at,
        created_at=delivery.created_at,
        target=delivery.target,
    )


def make_unstored_delivery(message: Message, subscription: Subscription, at: datetime) -> Delivery:
    """Create the delivery to a subscription that isn't stored; the delivery contains it."""
    return attrs.evolve(make_delivery(message, subscription, at), target=subscription)


def make_cancelled_delivery(
    message: Message, subscription: Subscription, reason: str, at: datetime, *, stored: bool
) -> Delivery:
    """Create the cancelled delivery to a recipient that can't get any request.

    Args:
        message: The message.
        subscription: The known data of the recipient.
        reason: The reason, which the subscription's owner may read.
        at: The time of routing.
        stored: Whether the subscription is in the store; otherwise the delivery contains it.
    """
    return Delivery(
        id=delivery_id(message.id, subscription.id),
        message_id=message.id,
        subscription_id=subscription.id,
        event=message.event,
        state=DeliveryState.CANCELLED,
        due_at=at,
        created_at=at,
        finished_at=at,
        reason=reason,
        target=None if stored else subscription,
    )
