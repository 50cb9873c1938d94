"""Values to rows, and rows to values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from thorn_core.errors import ConfigurationError
from thorn_core.stores.sql import schema
from thorn_core.values import Attempt, Message, Subscription

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Characters of a reason that are kept.
REASON_LENGTH = 2000


def micros(at: datetime) -> int:
    """Microseconds since 1970.

    Example:
        >>> micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
        1000005
    """
    return (at - EPOCH) // MICROSECOND


def moment(number: int) -> datetime:
    """The time of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=number)


def optional_micros(at: datetime | None) -> int | None:
    """Microseconds since 1970, or None."""
    return None if at is None else micros(at)


def optional_moment(number: int | None) -> datetime | None:
    """The time of so many microseconds since 1970, or None."""
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


def subscription_row(subscription: Subscription) -> tuple[Any, ...]:
    """The row of a new subscription.

    Raises:
        ConfigurationError: A value is longer than its column.
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
        clean(subscription.disabled_reason),
        optional_micros(subscription.failing_since),
        subscription.failures,
        optional_micros(subscription.last_failure_at),
        micros(subscription.created_at),
        micros(subscription.updated_at),
        None,
    )


def subscription_of(row: Sequence[Any]) -> Subscription:
    """The subscription of a row."""
    (
        key, _, owner, url, events, secrets, expiry, content_type, digest, headers, description,
        rate_limit, enabled, reason, failing_since, failures, last, created_at, updated_at, _,
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
        disabled_reason=reason,
        failing_since=optional_moment(failing_since),
        failures=failures,
        last_failure_at=optional_moment(last),
        created_at=moment(created_at),
        updated_at=moment(updated_at),
    )
