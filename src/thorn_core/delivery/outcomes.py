"""The outcome of an attempt: delivered, retried, failed or cancelled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.values import Attempt, Delivery, DeliveryState, Outcome

RETRY_AFTER_STATUSES = frozenset({429, 502, 503, 504})
DELIVERED = Outcome(state=DeliveryState.DELIVERED)
_LONGEST_WAIT = timedelta(seconds=999_999_999)
_LONGEST_DATE = 64  # RFC 850's is the longest form, with 33 characters


def judge(
    attempt: Attempt,
    delivery: Delivery,
    *,
    policy: RetryPolicy,
    settings: Settings,
    at: datetime,
    random: float,
) -> Outcome:
    """Decide the outcome of a delivery after an attempt; never raises.

    Args:
        attempt: The attempt, with its response or error.
        delivery: The delivery before the attempt.
        policy: The retry policy.
        settings: The app's settings.
        at: The end of the attempt.
        random: A random number from 0 to 1, for the jitter.

    Example:
        >>> now = datetime(2026, 1, 1, tzinfo=UTC)
        >>> attempt = Attempt(
        ...     id="att_1", delivery_id="dlv_1", number=1, at=now, duration=0.1, status=503,
        ...     headers={"retry-after": "60"})
        >>> delivery = Delivery(
        ...     id="dlv_1", message_id="msg_1", subscription_id="sub_1", event="a", due_at=now,
        ...     created_at=now)
        >>> outcome = judge(attempt, delivery, policy=RetryPolicy((5,)),
        ...     settings=Settings(), at=now, random=0.5)
        >>> str(outcome.state), (outcome.due_at - now).total_seconds()
        ('pending', 60.0)
    """
    if attempt.ok:
        return DELIVERED
    reason = attempt.error or f"status {attempt.status}"
    if attempt.status == 410:
        return Outcome(
            state=DeliveryState.CANCELLED,
            reason="status 410: the recipient is gone",
            disable="the recipient answered 410 Gone",
        )
    after = settings.disable_after
    disable_after = None if after is None else timedelta(seconds=after)
    pause_until = _pause(attempt, settings, at)
    failures = delivery.attempt_count + 1 - delivery.attempts_before
    delay = policy.delay(max(1, failures), random=random)
    if delay is None:
        return Outcome(
            state=DeliveryState.FAILED,
            reason=reason,
            pause_until=pause_until,
            disable_after=disable_after,
        )
    due_at = at + delay
    return Outcome(
        state=DeliveryState.PENDING,
        due_at=max(due_at, pause_until) if pause_until else due_at,
        reason=reason,
        pause_until=pause_until,
        disable_after=disable_after,
    )


def _pause(attempt: Attempt, settings: Settings, at: datetime) -> datetime | None:
    if attempt.status not in RETRY_AFTER_STATUSES:
        return None
    wait = retry_after(attempt.headers.get("retry-after"), at)
    if not wait:
        return None
    return at + min(wait, timedelta(seconds=settings.retry_after_max))


def retry_after(value: object, at: datetime) -> timedelta | None:
    """Read a `Retry-After` header: seconds or a date (RFC 9110 section 10.2.3).

    Args:
        value: The header's value, which may be invalid; None if there is none.
        at: The current time, from which a date is counted.

    Returns:
        The time to wait, from 0 to 999,999,999 seconds; None if the value is neither a number of
        seconds nor a date.

    Example:
        >>> retry_after("120", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=120)
        >>> retry_after("Thu, 01 Jan 2026 00:01:00 GMT", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=60)
        >>> retry_after("soon", datetime(2026, 1, 1, tzinfo=UTC))
    """
    if not isinstance(value, str) or not value.isascii():
        return None
    value = value.strip(" \t")
    if value.isdigit():
        digits = value.lstrip("0") or "0"
        return timedelta(seconds=int(digits)) if len(digits) < 10 else _LONGEST_WAIT
    if len(value) > _LONGEST_DATE:
        return None
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return min(max(date - at, timedelta()), _LONGEST_WAIT)
    except Exception:
        # Depending on Python's version, the parser raises ValueError, TypeError or OverflowError.
        return None
