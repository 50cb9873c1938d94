"""Converts values to rows, and rows to values."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from thorn_core.errors import ConfigurationError
from thorn_core.keys import (
    attempt_id,
    delivery_id_of,
    delivery_key,
    message_id,
    message_key,
    recipient_of,
)
from thorn_core.retries import RetryPolicy
from thorn_core.stores.sql import schema
from thorn_core.values import Attempt, Delivery, DeliveryState, Message, Subscription

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# The maximum length of a stored reason.
REASON_LENGTH = 2000
# Fields of a message without columns of their own, stored as JSON; two more need conversion.
EXTRAS = tuple(
    field.name
    for field in attrs.fields(Message)
    if field.name not in (*schema.MESSAGES.names, "retry_policy", "idempotency", "claims")
)
# Values of the column `state` of deliveries; 0 is pending or in flight, depending on the queue.
OPEN, DELIVERED, FAILED, CANCELLED = range(4)
STATES = {
    DeliveryState.PENDING: OPEN,
    DeliveryState.IN_FLIGHT: OPEN,
    DeliveryState.DELIVERED: DELIVERED,
    DeliveryState.FAILED: FAILED,
    DeliveryState.CANCELLED: CANCELLED,
}
FINISHED = {number: state for state, number in STATES.items() if number != OPEN}
# The columns for `delivery_of`, from $deliveries d, $recipients r and a LEFT JOIN of $queue q.
DELIVERY = (
    "d.id, d.state, d.attempts, d.created_at, d.finished_at, d.reason, d.target,"
    " r.subscription_id, q.due_at, q.tries, q.leased_until, r.paused"
)


def micros(at: datetime) -> int:
    """Return a time as microseconds since 1970.

    Example:
        >>> micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
        1000005
    """
    return (at - EPOCH) // MICROSECOND


def moment(number: int) -> datetime:
    """Return the time for microseconds since 1970."""
    return EPOCH + timedelta(microseconds=number)


def optional_micros(at: datetime | None) -> int | None:
    """Return microseconds since 1970, or None for None."""
    return None if at is None else micros(at)


def optional_moment(number: int | None) -> datetime | None:
    """Return the time for microseconds since 1970, or None for None."""
    return None if number is None else moment(number)


def clean(text: str | None, length: int = REASON_LENGTH) -> str | None:
    """Return text that every database accepts: no NUL, no lone surrogates, of limited length."""
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
        ConfigurationError: It is too long or contains NUL.
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


def subscription_row(subscription: Subscription) -> tuple[Any, ...]:
    """Return the row of a new subscription.

    Raises:
        ConfigurationError: A value is too long for its column.
    """
    expiry = {secret: micros(at) for secret, at in subscription.secret_expiry.items()}
    return (
        check_length("subscription id", subscription.id, schema.SUBSCRIPTION_LENGTH),
        1,
        check_length("owner", subscription.owner, schema.OWNER_LENGTH),
        subscription.url,
        json.dumps(subscription.events),
        json.dumps(subscription.secrets),
        _dump(expiry),
        check_length("content type", subscription.content_type, 255),
        subscription.hmac_digest,
        _dump(dict(subscription.headers)),
        clean(subscription.description, 1_000_000),
        subscription.rate_limit,
        int(subscription.enabled),
        int(subscription.paused),
        clean(subscription.disabled_reason),
        optional_micros(subscription.failing_since),
        subscription.failures,
        optional_micros(subscription.last_failure_at),
        micros(subscription.created_at),
        micros(subscription.updated_at),
        None,
    )


def subscription_of(row: Sequence[Any]) -> Subscription:
    """Return the subscription of a row."""
    (
        key, _, owner, url, events, secrets, expiry, content_type, digest, headers, description,
        rate_limit, enabled, paused, reason, failing_since, failures, last, created_at, updated_at,
        _,
    ) = row  # fmt: skip
    return Subscription(
        id=key,
        owner=owner,
        url=url,
        events=tuple(json.loads(events)),
        secrets=tuple(json.loads(secrets)),
        secret_expiry={s: moment(n) for s, n in _load(expiry).items()},
        content_type=content_type,
        hmac_digest=digest,
        headers=_load(headers),
        description=description,
        rate_limit=rate_limit,
        enabled=bool(enabled),
        paused=bool(paused),
        disabled_reason=reason,
        failing_since=optional_moment(failing_since),
        failures=failures,
        last_failure_at=optional_moment(last),
        created_at=moment(created_at),
        updated_at=moment(updated_at),
    )


# -- messages


def message_row(message: Message) -> tuple[Any, ...]:
    """Return the row of a message.

    Raises:
        ConfigurationError: The sender's id is too long for its column, or the message's id is
            invalid.
    """
    extra: dict[str, Any] = {name: v for name in EXTRAS if (v := getattr(message, name))}
    if message.retry_policy is not None:
        extra["retry_policy"] = [message.retry_policy.schedule, message.retry_policy.jitter]
    if message.idempotency is not None:
        extra["idempotency"] = message.idempotency.hex()
    # OPERATOR has a type of its own.
    sender = None if message.sender is None else str(message.sender)
    return (
        key_of_message(message.id),
        check_length("event", message.event, schema.EVENT_LENGTH),
        message.data,
        micros(message.at),
        check_length("sender", sender, schema.OWNER_LENGTH),
        None,
        None,
        json.dumps(extra) if extra else None,
    )


@functools.lru_cache(maxsize=4096)
def key_of_message(message_id: str) -> bytes:
    """Return the key of a message.

    Raises:
        ConfigurationError: The message's id is invalid.
    """
    key = message_key(message_id)
    if key is None:
        raise ConfigurationError(
            f"{message_id!r} is not a message id; thorn_core.values.new_id('msg') creates one"
        )
    return key


def message_of(row: Sequence[Any]) -> Message:
    """Return the message of a row."""
    key, event, data, at, sender, _, _, extra = row
    if extra is None:
        return Message(id=message_id(key), event=event, data=data, at=moment(at), sender=sender)
    more = json.loads(extra)
    if policy := more.pop("retry_policy", None):
        more["retry_policy"] = RetryPolicy(policy[0], jitter=policy[1])
    if digest := more.pop("idempotency", None):
        more["idempotency"] = bytes.fromhex(digest)
    return Message(id=message_id(key), event=event, data=data, at=moment(at), sender=sender, **more)


# -- deliveries and attempts


@functools.lru_cache(maxsize=4096)
def key_of_delivery(delivery_id: str) -> bytes:
    """Return the key of a delivery.

    Raises:
        ValueError: The delivery's id is invalid.
    """
    key = delivery_key(delivery_id)
    if key is None:
        raise ValueError(
            f"{delivery_id!r} is not a delivery id; thorn_core.keys.delivery_id creates one"
        )
    return key


def delivery_row(delivery: Delivery) -> tuple[Any, ...]:
    """Return the row of a delivery.

    Raises:
        ConfigurationError: A value of the delivery's own subscription is too long for its column.
        ValueError: The delivery's id is invalid.
    """
    key, target = key_of_delivery(delivery.id), delivery.target
    return (
        key,
        recipient_of(key),
        STATES[delivery.state],
        delivery.attempt_count,
        micros(delivery.created_at),
        optional_micros(delivery.finished_at),
        clean(delivery.reason),
        None if target is None else json.dumps(subscription_row(target)),
    )


def delivery_of(row: Sequence[Any], event: str) -> Delivery:
    """Return the delivery of a row.

    Args:
        row: The columns of `DELIVERY`.
        event: The name of its message's event.
    """
    (
        key, state, attempts, created_at, finished_at, reason, target,
        subscription_id, due_at, tries, leased_until, paused,
    ) = row  # fmt: skip
    if state != OPEN:
        # Finished deliveries have no row in the queue.
        stands, due_at, tries = FINISHED[state], finished_at, attempts
    else:
        stands = DeliveryState.PENDING if leased_until is None else DeliveryState.IN_FLIGHT
    return Delivery(
        id=delivery_id_of(key),
        message_id=message_id(key),
        subscription_id=subscription_id,
        event=event,
        state=stands,
        held=bool(paused) and stands is DeliveryState.PENDING,
        attempt_count=attempts,
        attempts_before=attempts - tries,
        due_at=moment(due_at),
        created_at=moment(created_at),
        finished_at=optional_moment(finished_at),
        reason=reason,
        target=None if target is None else subscription_of(json.loads(target)),
    )


def attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    """Return the row of an attempt."""
    return (
        key_of_delivery(attempt.delivery_id),
        micros(attempt.at),
        attempt.number,
        round(attempt.duration * 1_000_000),
        attempt.status,
        int(attempt.timed_out),
        clean(attempt.error),
        _dump(dict(attempt.headers)),
        attempt.body or None,
    )


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Return the attempt of a row."""
    key, at, number, duration, status, timed_out, error, headers, body = row
    delivery = delivery_id_of(key)
    return Attempt(
        id=attempt_id(delivery, moment(at)),
        delivery_id=delivery,
        number=number,
        at=moment(at),
        duration=duration / 1_000_000,
        status=status,
        headers=_load(headers),
        body=body or b"",
        error=error,
        timed_out=bool(timed_out),
    )
