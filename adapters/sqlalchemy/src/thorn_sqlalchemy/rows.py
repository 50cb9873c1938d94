"""Values to rows, and rows to values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from thorn_core import (
    Attempt,
    ConfigurationError,
    Delivery,
    DeliveryState,
    Message,
    RetryPolicy,
    Subscription,
)
from thorn_core.stores import rules
from thorn_core.stores.rules import Health
from thorn_sqlalchemy import schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a message has beside what is looked for.
EXTRAS = ("sender_name", "ref", "headers", "context", "timeout", "envelope", "declared", "only")
REASON_LENGTH = 2000


def micros(at: datetime) -> int:
    """Microseconds since 1970.

    Example:
        >>> micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
        1000005
    """
    since = at - EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def moment(number: int) -> datetime:
    """The time of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=number)


def _optional_micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def _optional_moment(number: int | None) -> datetime | None:
    return None if number is None else moment(number)


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


def _dump(value: Any) -> str | None:
    return json.dumps(value) if value else None


def _load(value: str | None) -> Any:
    return json.loads(value) if value else {}


# -- subscriptions


def subscription_row(subscription: Subscription) -> dict[str, Any]:
    """The row of a subscription.

    Raises:
        ConfigurationError: A value is longer than its column.
    """
    expiry = {secret: micros(at) for secret, at in subscription.secret_expiry.items()}
    return {
        "id": check_length("subscription id", subscription.id, schema.SUBSCRIPTION_LENGTH),
        "owner": check_length("owner", subscription.owner, schema.OWNER_LENGTH),
        "url": subscription.url,
        "events": json.dumps(subscription.events),
        "secrets": json.dumps(subscription.secrets),
        "secret_expiry": _dump(expiry),
        "content_type": check_length("content type", subscription.content_type, 255),
        "hmac_digest": subscription.hmac_digest,
        "headers": _dump(dict(subscription.headers)),
        "description": clean(subscription.description, 1_000_000),
        "rate_limit": subscription.rate_limit,
        "enabled": subscription.enabled,
        "disabled_reason": clean(subscription.disabled_reason),
        **health_row(rules.health_of(subscription)),
        "created_at": micros(subscription.created_at),
        "updated_at": micros(subscription.updated_at),
    }


def subscription_of(row: Row[Any] | Mapping[str, Any]) -> Subscription:
    """The subscription of a row."""
    values = row if isinstance(row, Mapping) else row._mapping
    return Subscription(
        id=values["id"],
        owner=values["owner"],
        url=values["url"],
        events=tuple(json.loads(values["events"])),
        secrets=tuple(json.loads(values["secrets"])),
        secret_expiry={s: moment(n) for s, n in _load(values["secret_expiry"]).items()},
        content_type=values["content_type"],
        hmac_digest=values["hmac_digest"],
        headers=_load(values["headers"]),
        description=values["description"],
        rate_limit=values["rate_limit"],
        enabled=bool(values["enabled"]),
        disabled_reason=values["disabled_reason"],
        failing_since=_optional_moment(values["failing_since"]),
        failures=values["failures"],
        last_failure_at=_optional_moment(values["last_failure_at"]),
        created_at=moment(values["created_at"]),
        updated_at=moment(values["updated_at"]),
    )


def health_row(health: Health) -> dict[str, Any]:
    """The columns that say how a subscription's attempts went."""
    return {
        "failing_since": _optional_micros(health.failing_since),
        "failures": health.failures,
        "last_failure_at": _optional_micros(health.last_failure_at),
    }


def health_of(row: Row[Any]) -> Health:
    """The health of a subscription's row."""
    return Health(
        enabled=bool(row.enabled),
        disabled_reason=row.disabled_reason,
        failing_since=_optional_moment(row.failing_since),
        failures=row.failures,
        last_failure_at=_optional_moment(row.last_failure_at),
    )


# -- messages


def message_row(message: Message) -> dict[str, Any]:
    """The row of a message that isn't routed yet.

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
        "sender": check_length("sender", message.sender, schema.OWNER_LENGTH),
        "extra": json.dumps(extra) if extra else None,
        "route_at": 0,
    }


def message_of(row: Row[Any]) -> Message:
    """The message of a row."""
    extra = _load(row.extra)
    policy = extra.pop("retry_policy", None)
    if policy is not None:
        extra["retry_policy"] = RetryPolicy(policy[0], jitter=policy[1])
    return Message(
        id=row.id,
        event=row.event,
        data=bytes(row.data),
        at=moment(row.at),
        sender=row.sender,
        **extra,
    )


# -- deliveries and attempts


def delivery_row(delivery: Delivery) -> dict[str, Any]:
    """The row of a delivery that nobody has leased.

    Raises:
        ConfigurationError: An id is longer than its column.
    """
    target = delivery.target
    return {
        "id": delivery.id,
        "message_id": delivery.message_id,
        "subscription_id": check_length(
            "subscription id", delivery.subscription_id, schema.SUBSCRIPTION_LENGTH
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
        "target": None if target is None else json.dumps(subscription_row(target)),
        "ready_at": None if delivery.state.settled else micros(delivery.due_at),
        "token": None,
        "leased_until": None,
    }


def delivery_of(row: Row[Any]) -> Delivery:
    """The delivery of a row."""
    return Delivery(
        id=row.id,
        message_id=row.message_id,
        subscription_id=row.subscription_id,
        event=row.event,
        recipient=row.recipient,
        state=DeliveryState(row.state),
        attempt_count=row.attempt_count,
        attempts_before=row.attempts_before,
        due_at=moment(row.due_at),
        created_at=moment(row.created_at),
        settled_at=_optional_moment(row.settled_at),
        reason=row.reason,
        target=None if row.target is None else subscription_of(json.loads(row.target)),
    )


def attempt_row(attempt: Attempt, recipient: str) -> dict[str, Any]:
    """The row of an attempt.

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
        "headers": _dump(dict(attempt.headers)),
        "body": attempt.body or None,
        "error": clean(attempt.error),
        "timed_out": attempt.timed_out,
    }


def attempt_of(row: Row[Any]) -> Attempt:
    """The attempt of a row."""
    return Attempt(
        id=row.id,
        delivery_id=row.delivery_id,
        number=row.number,
        at=moment(row.at),
        duration=row.duration,
        status=row.status,
        headers=_load(row.headers),
        body=bytes(row.body or b""),
        error=row.error,
        timed_out=bool(row.timed_out),
    )
