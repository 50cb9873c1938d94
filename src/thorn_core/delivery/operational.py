"""Operational events: messages about subscriptions, for their owners."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from thorn_core.codecs import dump_json
from thorn_core.keys import new_id
from thorn_core.recipients.urls import without_secrets
from thorn_core.values import OPERATOR, Message, Subscription


def disabled_message(subscription: Subscription, at: datetime) -> Message:
    """Create the operational event about a disabled subscription."""
    data = {"reason": subscription.disabled_reason}
    return _operational_message("thorn.subscription.disabled", subscription, data, at)


def failing_message(subscription: Subscription, disabled_at: datetime, at: datetime) -> Message:
    """Create the operational event that warns that a subscription will be disabled.

    Args:
        subscription: The failing subscription.
        disabled_at: When it will be disabled unless an attempt succeeds.
        at: The time.
    """
    data = {
        "failing_since": subscription.failing_since,
        "failures": subscription.failures,
        "disabled_at": disabled_at,
    }
    return _operational_message("thorn.subscription.failing", subscription, data, at)


def _operational_message(
    event: str, subscription: Subscription, data: Mapping[str, Any], at: datetime
) -> Message:
    """Create an event about a subscription, for its owner's other matching subscriptions.

    If it has no owner, only other subscriptions without an owner get the event.
    """
    # Recipients at other URLs get it, so it contains no secret parts of this URL.
    url = without_secrets(subscription.url)
    about = {"id": subscription.id, "url": url, "events": subscription.events}
    return Message(
        id=new_id("msg", at),
        event=event,
        data=dump_json({**about, **data}),
        at=at,
        sender=OPERATOR if subscription.owner is None else subscription.owner,
    )
