"""Values to rows, and rows to values.

What is written by statements of our own is made here as the columns hold it; what Django writes and
reads is converted by the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from thorn_core import (
    Attempt,
    ConfigurationError,
    Delivery,
    DeliveryState,
    Message,
    RetryPolicy,
    Subscription,
)
from thorn_django import models
from thorn_django.fields import micros, moment

Row = Mapping[str, Any]

# What a message has beside what is looked for.
EXTRAS = ("sender_name", "ref", "headers", "context", "timeout", "envelope", "declared", "only")
REASON_LENGTH = 2000
DESCRIPTION_LENGTH = 1_000_000


def clean(text: str | None, length: int = REASON_LENGTH) -> str | None:
    """Text that every database keeps: no NUL, no half of a character, not too long."""
    if text is None:
        return None
    if len(text) > length:
        text = text[: length - 1] + "…"
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def check_length(what: str, value: str | None, most: int) -> str | None:
    """Check that a text fits its column.

    Raises:
        ConfigurationError: It doesn't.
    """
    if value is not None and (len(value) > most or "\0" in value):
        raise ConfigurationError(
            f"{what} {value[:50]!r} has {len(value)} characters; the database takes at most {most},"
            " and no NUL"
        )
    return value


def _optional_micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


# -- subscriptions

SUBSCRIPTION = tuple(field.name for field in models.AbstractSubscription._meta.fields)


def subscription_values(subscription: Subscription) -> dict[str, Any]:
    """What the fields of a subscription hold.

    Raises:
        ConfigurationError: A value is longer than its column.
    """
    expiry = {secret: micros(at) for secret, at in subscription.secret_expiry.items()}
    return {
        "id": check_length("subscription id", subscription.id, models.SUBSCRIPTION_LENGTH),
        "owner": check_length("owner", subscription.owner, models.OWNER_LENGTH),
        "url": subscription.url,
        "events": list(subscription.events),
        "secrets": list(subscription.secrets),
        "secret_expiry": expiry or None,
        "content_type": check_length("content type", subscription.content_type, 255),
        "hmac_digest": subscription.hmac_digest,
        "headers": dict(subscription.headers) or None,
        "description": clean(subscription.description, DESCRIPTION_LENGTH),
        "rate_limit": subscription.rate_limit,
        "enabled": subscription.enabled,
        "disabled_reason": clean(subscription.disabled_reason),
        "failing_since": subscription.failing_since,
        "failures": subscription.failures,
        "last_failure_at": subscription.last_failure_at,
        "created_at": subscription.created_at,
        "updated_at": subscription.updated_at,
    }


def subscription_of(row: Row) -> Subscription:
    """The subscription of a row."""
    return Subscription(
        id=row["id"],
        owner=row["owner"],
        url=row["url"],
        events=tuple(row["events"]),
        secrets=tuple(row["secrets"]),
        secret_expiry={s: moment(n) for s, n in (row["secret_expiry"] or {}).items()},
        content_type=row["content_type"],
        hmac_digest=row["hmac_digest"],
        headers=row["headers"] or {},
        description=row["description"],
        rate_limit=row["rate_limit"],
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        failing_since=row["failing_since"],
        failures=row["failures"],
        last_failure_at=row["last_failure_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _target_text(target: Subscription) -> str:
    """A subscription that isn't in the table, as its columns would hold it."""
    fields = {field.name: field for field in models.AbstractSubscription._meta.fields}
    values = subscription_values(target)
    return json.dumps({name: fields[name].get_prep_value(v) for name, v in values.items()})


def _target_of(columns: Row) -> Subscription:
    row = dict(columns)
    for name in ("events", "secrets", "secret_expiry", "headers"):
        row[name] = None if row[name] is None else json.loads(row[name])
    for name in ("failing_since", "last_failure_at", "created_at", "updated_at"):
        row[name] = None if row[name] is None else moment(row[name])
    return subscription_of(row)


# -- messages

MESSAGE = ("id", "event", "data", "at", "sender", "extra")


def message_row(message: Message) -> dict[str, Any]:
    """The columns of a message that isn't routed yet.

    Raises:
        ConfigurationError: The sender's id is longer than its column.
    """
    extra: dict[str, Any] = {name: v for name in EXTRAS if (v := getattr(message, name))}
    if message.retry_policy is not None:
        extra["retry_policy"] = [message.retry_policy.schedule, message.retry_policy.jitter]
    return {
        "id": message.id,
        "event": message.event,
        "data": message.data,
        "at": micros(message.at),
        "sender": check_length("sender", message.sender, models.OWNER_LENGTH),
        "extra": json.dumps(extra) if extra else None,
        "route_at": 0,
    }


def message_of(row: Row) -> Message:
    """The message of a row."""
    extra = dict(row["extra"] or {})
    policy = extra.pop("retry_policy", None)
    if policy is not None:
        extra["retry_policy"] = RetryPolicy(policy[0], jitter=policy[1])
    return Message(
        id=row["id"],
        event=row["event"],
        data=bytes(row["data"]),
        at=row["at"],
        sender=row["sender"],
        **extra,
    )


# -- deliveries and attempts

DELIVERY = (
    "id",
    "message_id",
    "subscription_id",
    "event",
    "recipient",
    "state",
    "attempt_count",
    "attempts_before",
    "due_at",
    "created_at",
    "settled_at",
    "reason",
    "target",
)
ATTEMPT = (
    "id",
    "delivery_id",
    "number",
    "at",
    "duration",
    "status",
    "headers",
    "body",
    "error",
    "timed_out",
)


def delivery_row(delivery: Delivery) -> dict[str, Any]:
    """The columns of a delivery that nobody has leased.

    Raises:
        ConfigurationError: An id is longer than its column.
    """
    target = delivery.target
    return {
        "id": delivery.id,
        "message_id": delivery.message_id,
        "subscription_id": check_length(
            "subscription id", delivery.subscription_id, models.SUBSCRIPTION_LENGTH
        ),
        "event": delivery.event,
        "recipient": delivery.recipient,
        "state": delivery.state.value,
        "attempt_count": delivery.attempt_count,
        "attempts_before": delivery.attempts_before,
        "due_at": micros(delivery.due_at),
        "created_at": micros(delivery.created_at),
        "settled_at": _optional_micros(delivery.settled_at),
        "reason": clean(delivery.reason),
        "target": None if target is None else _target_text(target),
        "ready_at": None if delivery.state.settled else micros(delivery.due_at),
        "token": None,
        "leased_until": None,
    }


def delivery_of(row: Row) -> Delivery:
    """The delivery of a row."""
    target = row["target"]
    return Delivery(
        id=row["id"],
        message_id=row["message_id"],
        subscription_id=row["subscription_id"],
        event=row["event"],
        recipient=row["recipient"],
        state=DeliveryState(row["state"]),
        attempt_count=row["attempt_count"],
        attempts_before=row["attempts_before"],
        due_at=row["due_at"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        reason=row["reason"],
        target=None if target is None else _target_of(target),
    )


def attempt_row(attempt: Attempt, recipient: str) -> dict[str, Any]:
    """The columns of an attempt.

    Args:
        attempt: The attempt.
        recipient: Whom it was made to.
    """
    return {
        "id": attempt.id,
        "delivery_id": attempt.delivery_id,
        "recipient": recipient,
        "number": attempt.number,
        "at": micros(attempt.at),
        "duration": attempt.duration,
        "status": attempt.status,
        "headers": json.dumps(dict(attempt.headers)) if attempt.headers else None,
        "body": attempt.body or None,
        "error": clean(attempt.error),
        "timed_out": attempt.timed_out,
    }


def attempt_of(row: Row) -> Attempt:
    """The attempt of a row."""
    return Attempt(
        id=row["id"],
        delivery_id=row["delivery_id"],
        number=row["number"],
        at=row["at"],
        duration=row["duration"],
        status=row["status"],
        headers=row["headers"] or {},
        body=bytes(row["body"] or b""),
        error=row["error"],
        timed_out=row["timed_out"],
    )
