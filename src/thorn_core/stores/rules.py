"""The pure rules that every store applies to subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import attrs

from thorn_core.codecs import format_datetime
from thorn_core.errors import ConfigurationError
from thorn_core.patterns import matches
from thorn_core.values import OPERATOR, Completion, Message, Subscription

# Failures before a subscription is disabled: the default policy makes ten attempts per event.
LEAST_FAILURES = 10
# A longer gap between failures ends the streak. The default policy waits at most 24 h + 20 %.
LONGEST_GAP = timedelta(days=2)
# Warn the owner at these shares of `disable_after`.
WARNINGS = (0.5, 0.9)


@attrs.frozen(kw_only=True)
class Health:
    """The recent results of attempts for a subscription.

    Attributes:
        enabled: False stops deliveries.
        disabled_reason: The reason for disabling it.
        failing_since: Time of the first failure of the current streak; None after a success.
        failures: Failed attempts in the streak.
        last_failure_at: Time of the last failure.
    """

    enabled: bool = True
    disabled_reason: str | None = None
    failing_since: datetime | None = None
    failures: int = 0
    last_failure_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Changes:
    """The changes of subscriptions that completions cause.

    Attributes:
        health: Changed health by subscription id.
        disabled: The time of disabling of newly disabled subscriptions, by id.
        warned: Ids of subscriptions whose owners need a warning.
    """

    health: Mapping[str, Health]
    disabled: Mapping[str, datetime]
    warned: frozenset[str]


def health_of(subscription: Subscription) -> Health:
    """Return the health in a subscription's attributes."""
    return Health(**{name: getattr(subscription, name) for name in HEALTH})


HEALTH = tuple(field.name for field in attrs.fields(Health))


def judge_subscriptions(health: Mapping[str, Health], completions: Iterable[Completion]) -> Changes:
    """Return the changes of subscriptions that completions cause.

    Args:
        health: The stored health by subscription id. Completions for other subscriptions have no
            effect: they were removed, or are not in the store.
        completions: Completions with a valid lease.
    """
    now = dict(health)
    disabled: dict[str, datetime] = {}
    warned: set[str] = set()
    for completion in sorted(completions, key=lambda completion: completion.at):
        key = completion.claim.delivery.subscription_id
        if key not in now:
            continue
        before = now[key]
        after = now[key] = after_completion(before, completion)
        if before.enabled and not after.enabled:
            disabled[key] = completion.at
        elif _is_warning(before, after, completion.outcome.disable_after):
            warned.add(key)
    changed = {key: after for key, after in now.items() if after != health[key]}
    return Changes(health=changed, disabled=disabled, warned=frozenset(warned - disabled.keys()))


def after_completion(health: Health, completion: Completion) -> Health:
    """Return the health of a subscription after a completion.

    A success or two days without a failure end a streak of failures. A streak disables the
    subscription when it has lasted for the outcome's `disable_after` and counts ten failures.
    Internal failures and completions without an attempt have no effect.

    Args:
        health: The health before the completion.
        completion: The completion.

    Example:
        >>> from datetime import UTC
        >>> from thorn_core.values import Attempt, Claim, Delivery, DeliveryState, Message, Outcome
        >>> at = datetime(2026, 3, 1, tzinfo=UTC)
        >>> message = Message(id="msg_1", event="a", data=b"1", at=at)
        >>> delivery = Delivery(
        ...     id="dlv_1_1", message_id="msg_1", subscription_id="sub_1", event="a", due_at=at,
        ...     created_at=at)
        >>> claim = Claim(delivery=delivery, message=message, subscription=None, token="t")
        >>> attempt = Attempt(id="att_1", delivery_id="dlv_1_1", number=1, at=at, duration=1.0)
        >>> pending = Outcome(state=DeliveryState.PENDING)
        >>> failed = Completion(claim=claim, outcome=pending, attempt=attempt, at=at)
        >>> after_completion(Health(), failed).failures
        1
    """
    attempt, outcome = completion.attempt, completion.outcome
    if attempt is None or completion.internal:
        return health
    if attempt.ok and health.failing_since is None and not health.failures:
        streak = health
    elif attempt.ok:
        streak = attrs.evolve(health, failing_since=None, failures=0, last_failure_at=None)
    else:
        streak = _failed(health, attempt.at)
    reason = outcome.disable or _why_disable(streak, outcome.disable_after)
    if reason is None or not health.enabled:
        return streak
    return attrs.evolve(streak, enabled=False, disabled_reason=reason)


def _failed(health: Health, at: datetime) -> Health:
    last = health.last_failure_at
    if last is None or health.failing_since is None or at - last > LONGEST_GAP:
        return attrs.evolve(health, failing_since=at, failures=1, last_failure_at=at)
    return attrs.evolve(health, failures=health.failures + 1, last_failure_at=max(last, at))


def _lasted(health: Health) -> timedelta:
    if health.failing_since is None or health.last_failure_at is None:
        return timedelta()
    return health.last_failure_at - health.failing_since


def _why_disable(health: Health, limit: timedelta | None) -> str | None:
    if limit is None or health.failures < LEAST_FAILURES or _lasted(health) < limit:
        return None
    assert health.failing_since is not None
    return (
        f"all {health.failures} attempts have failed since {format_datetime(health.failing_since)}"
    )


def _is_warning(before: Health, after: Health, limit: timedelta | None) -> bool:
    """Return True if a streak has just reached one of the shares of the limit."""
    if limit is None or not after.enabled or after.failing_since is None:
        return False
    former = _lasted(before) if before.failing_since == after.failing_since else timedelta()
    return any(former < share * limit <= _lasted(after) for share in WARNINGS)


def pauses(completions: Iterable[Completion]) -> Iterator[tuple[str, datetime]]:
    """Return the times until which recipients asked for a pause, by subscription id."""
    for completion in completions:
        until = completion.outcome.pause_until
        if until is not None:
            yield completion.claim.delivery.subscription_id, until


def reaches(subscription: Subscription, sender: str | None) -> bool:
    """Return True if a message of this sender is for a subscription of this owner.

    Example:
        >>> from datetime import UTC
        >>> at = datetime(2026, 3, 1, tzinfo=UTC)
        >>> ada = Subscription(id="sub_1", events=("*",), url="https://e.com/", owner="ada",
        ...     created_at=at, updated_at=at)
        >>> [reaches(ada, sender) for sender in ("ada", "bob", OPERATOR, None)]
        [True, False, False, True]
    """
    owner = subscription.owner
    return sender is None or owner is None or (owner == sender != OPERATOR)


def is_for(message: Message, subscription: Subscription) -> bool:
    """Return True if `only`, event and sender of a message match a subscription."""
    return (
        message.only in (None, subscription.id)
        and reaches(subscription, message.sender)
        and any(matches(pattern, message.event) for pattern in subscription.events)
    )


def changed(before: Subscription, change: Callable[[Subscription], Subscription]) -> Subscription:
    """Return the changed subscription after a check of the change.

    Raises:
        ConfigurationError: The change sets another id or `paused`.
    """
    after = change(before)
    if after.id != before.id:
        raise ConfigurationError(
            f"a change of the subscription {before.id!r} gives it the id {after.id!r}; leave the id"
            f" as it is"
        )
    if after.paused != before.paused:
        raise ConfigurationError(
            f"a change of the subscription {before.id!r} sets paused; use pause and resume"
        )
    return after
