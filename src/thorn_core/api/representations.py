"""Representations of objects in responses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from thorn_core.api.exchange import HOOKS, ApiRequest
from thorn_core.codecs import format_datetime
from thorn_core.recipients import hides_value, origin_of
from thorn_core.signatures import is_private
from thorn_core.values import Attempt, Delivery, DeliveryState, Message, Subscription


def subscription_document(request: ApiRequest, subscription: Subscription) -> dict[str, Any]:
    """Represent a subscription without its secrets; its public key isn't one."""
    return {
        "id": subscription.id,
        "subscription": request.link(HOOKS, subscription.id),
        "deliveries": request.link(HOOKS, subscription.id, "deliveries"),
        "owner": subscription.owner,
        "event": list(subscription.events),
        "url": subscription.url,
        "content_type": subscription.content_type,
        "hmac_digest": subscription.hmac_digest,
        "public_key": _public_key(subscription),
        "headers": {
            name: None if hides_value(name, value) else value
            for name, value in subscription.headers.items()
        },
        "description": subscription.description,
        "rate_limit": subscription.rate_limit,
        "enabled": subscription.enabled,
        "paused": subscription.paused,
        "disabled_reason": subscription.disabled_reason,
        "failing_since": _time(subscription.failing_since),
        "created_at": _time(subscription.created_at),
        "updated_at": _time(subscription.updated_at),
    }


def shown_secret(subscription: Subscription) -> str | None:
    """Return the newest secret that the owner needs; private keys aren't shown."""
    return next((secret for secret in subscription.secrets if not is_private(secret)), None)


def _public_key(subscription: Subscription) -> str | None:
    # If it is unavailable, for example without the package, omit it.
    with suppress(ValueError):
        return subscription.public_key
    return None


def delivery_document(
    request: ApiRequest, delivery: Delivery, subscription: Subscription | None
) -> dict[str, Any]:
    """Represent a delivery in a list, with the origin of its subscription if that still exists."""
    known = subscription or delivery.target
    waits = delivery.state is DeliveryState.PENDING
    unstored = delivery.target is not None
    return {
        "id": delivery.id,
        "delivery": request.link("deliveries", delivery.id),
        "subscription_id": delivery.subscription_id,
        "subscription": None if unstored else request.link(HOOKS, delivery.subscription_id),
        "message_id": delivery.message_id,
        "event": delivery.event,
        "origin": None if known is None else origin_of(known.url),
        "state": delivery.shown_state,
        "reason": delivery.reason,
        "attempt_count": delivery.attempt_count,
        "created_at": _time(delivery.created_at),
        "due_at": _time(delivery.due_at) if waits else None,
        "finished_at": _time(delivery.finished_at),
    }


def delivery_detail(
    request: ApiRequest,
    delivery: Delivery,
    subscription: Subscription | None,
    message: Message | None,
    attempts: Sequence[Attempt],
) -> dict[str, Any]:
    """Represent a delivery with its message and attempts."""
    return {
        **delivery_document(request, delivery, subscription),
        "message": None if message is None else _message(message),
        "attempts": [_attempt(attempt) for attempt in attempts],
    }


def _message(message: Message) -> dict[str, Any]:
    # Omits the headers, which may contain credentials, and the context, which is internal.
    return {
        "id": message.id,
        "event": message.event,
        "at": _time(message.at),
        "sender": message.sender or None,
        "ref": message.ref,
        "data": message.payload,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "number": attempt.number,
        "at": _time(attempt.at),
        "duration": attempt.duration,
        "ok": attempt.ok,
        "status": attempt.status,
        "headers": dict(attempt.headers),
        "body": attempt.body.decode("utf-8", "replace"),
        "error": attempt.error,
        "timed_out": attempt.timed_out,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else format_datetime(at)
