"""The worker's log: one record per failed attempt, cancelled delivery or disabled subscription.

All are warnings of the logger `thorn_core.worker`, with the ids of their objects in attributes
(`extra`). None contains a payload, a header, or more of a URL than its origin.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from thorn_core.codecs import format_datetime
from thorn_core.recipients import origin_of
from thorn_core.values import Completion, Delivery, DeliveryState, Message, Subscription

logger = logging.getLogger("thorn_core.worker")

# Maximum characters of a reason in a log record; it may contain a recipient's response.
REASON_LENGTH = 300
# Maximum number of stored locations of defects, and of stored event names.
DEFECT_CACHE = 1000


class DefectLog:
    """Logs defects of this program, with one traceback per location: thousands may be equal."""

    def __init__(self) -> None:
        self._places: dict[str, None] = {}

    def log(self, failure: Exception, what: str, extra: Mapping[str, Any]) -> None:
        """Log a defect.

        Args:
            failure: The exception.
            what: The action that failed.
            extra: Attributes of the log record.
        """
        place = _place(failure)
        known = place in self._places
        self._places[place] = None
        if len(self._places) > DEFECT_CACHE:
            del self._places[next(iter(self._places))]
        logger.error(
            "%s: %s at %s%s",
            what,
            type(failure).__name__,
            place,
            "; its traceback was logged before" if known else "",
            exc_info=None if known else failure,
            extra=extra,
        )


class UndeclaredLog:
    """Warns once per event whose declaration is needed but unknown."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def warn(self, message: Message) -> None:
        """Warn once about a message's event."""
        name = message.declared or message.event
        if name in self._warned:
            return
        if len(self._warned) < DEFECT_CACHE:
            self._warned.add(name)
        logger.warning(
            "messages of the event %s wait: its declaration has its own subscribers, validators or"
            " keep-alive, and this worker hasn't imported it; import the module that declares the"
            " event, with the setting imports or thorn worker --import",
            name,
            extra={"event": name, "message_id": message.id},
        )


def _place(failure: Exception) -> str:
    """Return the file and line of an exception's origin."""
    traceback = failure.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return f"{type(failure).__name__} {failure}"
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"


def log_completion(completion: Completion) -> None:
    """Log the outcome of a claim, unless it was delivered or only waits."""
    outcome, attempt = completion.outcome, completion.attempt
    delivery, subscription = completion.claim.delivery, completion.claim.subscription
    if attempt is not None and not attempt.ok:
        then = _then(completion)
        reason = attempt.error or f"status {attempt.status}"
        logger.warning(
            "attempt %d of %s failed: %s; %s",
            attempt.number,
            _named(delivery, subscription),
            _one_line(reason).rstrip("."),
            then,
            extra={
                **about(delivery, subscription),
                "attempt": attempt.number,
                "status": attempt.status,
                "reason": _one_line(reason),
                "retry_at": _retry_at(completion),
                "outcome": str(outcome.state),
            },
        )
    elif attempt is None and outcome.state is DeliveryState.CANCELLED:
        log_cancelled(delivery, outcome.reason, subscription)


def log_cancelled(
    delivery: Delivery, reason: str | None, subscription: Subscription | None = None
) -> None:
    """Log a cancelled delivery, for which no request was made, with the reason."""
    words = _one_line(reason or "")
    logger.warning(
        "%s was cancelled: %s",
        _named(delivery, subscription),
        words,
        extra={
            **about(delivery, subscription),
            "attempt": None,
            "status": None,
            "reason": words,
            "retry_at": None,
            "outcome": str(DeliveryState.CANCELLED),
        },
    )


def log_disabled(subscription: Subscription) -> None:
    """Log a disabled subscription with the reason."""
    reason = _one_line(subscription.disabled_reason or "")
    logger.warning(
        "%s was disabled: %s",
        _owned(subscription),
        reason,
        extra={"subscription_id": subscription.id, "owner": subscription.owner, "reason": reason},
    )


def log_failing(subscription: Subscription, disabled_at: datetime) -> None:
    """Log that a subscription will be disabled unless an attempt succeeds."""
    at = format_datetime(disabled_at)
    logger.warning(
        "%s has failed %d times in a row; it will be disabled at %s unless an attempt succeeds",
        _owned(subscription),
        subscription.failures,
        at,
        extra={
            "subscription_id": subscription.id,
            "owner": subscription.owner,
            "failures": subscription.failures,
            "disabled_at": at,
        },
    )


def about(delivery: Delivery, subscription: Subscription | None = None) -> dict[str, Any]:
    """Return the attributes of a log record about a delivery.

    Args:
        delivery: The delivery.
        subscription: The delivery's subscription, if known.
    """
    return {
        "message_id": delivery.message_id,
        "delivery_id": delivery.id,
        "subscription_id": delivery.subscription_id,
        "event": delivery.event,
        "origin": _origin(delivery, subscription),
    }


def _named(delivery: Delivery, subscription: Subscription | None) -> str:
    whom = _origin(delivery, subscription) or delivery.subscription_id
    return f"delivery {delivery.id} ({delivery.event} to {whom})"


def _origin(delivery: Delivery, subscription: Subscription | None) -> str | None:
    known = subscription or delivery.target
    return None if known is None else origin_of(known.url)


def _owned(subscription: Subscription) -> str:
    owner = "" if subscription.owner is None else f" of owner {_one_line(subscription.owner)}"
    return f"subscription {subscription.id}{owner}"


def _then(completion: Completion) -> str:
    retry_at = _retry_at(completion)
    if retry_at is not None:
        return f"next attempt at {retry_at}"
    if completion.outcome.state is DeliveryState.FAILED:
        return "no attempts are left"
    return "it will not be retried"


def _retry_at(completion: Completion) -> str | None:
    outcome = completion.outcome
    if outcome.state is not DeliveryState.PENDING:
        return None
    return format_datetime((outcome.due_at or completion.at).replace(microsecond=0))


def _one_line(text: str) -> str:
    """Sanitise external text: no line breaks or control characters, limited length."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain if len(plain) <= REASON_LENGTH else f"{plain[:REASON_LENGTH]}…"
