"""The recipients of a message that are not in the store: static ones, an event's, plugins'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import attrs

from thorn_core.errors import ConfigurationError, SecurityError, ThornError
from thorn_core.keys import derived_id
from thorn_core.recipients import parse_url
from thorn_core.static_subscribers import static_subscriptions
from thorn_core.stores.rules import reaches
from thorn_core.subscriptions import (
    OWNER_LENGTH,
    SubscriptionRules,
    identify,
)
from thorn_core.values import Message, Subscription

# Maximum characters of a subscription's id in stores.
ID_LENGTH = 120
# Maximum characters shown of an invalid URL.
URL_LENGTH = 500
# Maximum recipients from one callable for a message.
MOST_GIVEN = 10_000
# The reason shown to owners after a defect; the log has the details.
INTERNAL = "an internal error"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Impossible:
    """A recipient that can't get a request.

    Attributes:
        subscription: The known fields; its id is the same each time.
        reason: The reason, safe to show to the subscription's owner.
        failure: The exception from the program's own code, for the log.
    """

    subscription: Subscription
    reason: str
    failure: Exception | None = None


@attrs.frozen(kw_only=True)
class Unstored:
    """The recipients of a message that are not in the store.

    Attributes:
        found: Subscriptions that can get deliveries.
        impossible: Recipients that can't, with the reasons.
        failures: Exceptions of hooks that add recipients; these must be called again.
    """

    found: Sequence[Subscription] = ()
    impossible: Sequence[Impossible] = ()
    failures: Sequence[Exception] = ()


NOBODY = Unstored()


def unstored_recipients(
    rules: SubscriptionRules,
    message: Message,
    targets: Iterable[tuple[str, Any]],
    added: Iterable[Any] = (),
    failures: Sequence[Exception] = (),
) -> Unstored:
    """Return the recipients from targets and plugins; invalid ones don't affect the others.

    Args:
        rules: The app's rules.
        message: For callables.
        targets: Patterns, each with a URL, a mapping, a Subscription, a callable that gets the
            message, or an iterable of these.
        added: The subscriptions that plugins add.
        failures: Exceptions raised by plugins.
    """
    found: dict[str, Subscription] = {}
    impossible: dict[str, Impossible] = {}
    given = (_given(rules, pattern, target, message) for pattern, target in targets)
    plugged = (_checked(message.event, "a plugin", each) for each in added)
    for item in chain(*given, plugged):
        subscription = item.subscription if isinstance(item, Impossible) else item
        if not reaches(subscription, message.sender):
            continue
        if isinstance(item, Impossible):
            impossible[subscription.id] = item
        else:
            found[subscription.id] = subscription
    return Unstored(
        found=tuple(found.values()),
        impossible=tuple(item for key, item in impossible.items() if key not in found),
        failures=tuple(failures),
    )


def _given(
    rules: SubscriptionRules, pattern: str, target: Any, message: Message, place: str = ""
) -> Iterator[Subscription | Impossible]:
    """Return the recipients of a target.

    Args:
        rules: The app's rules.
        pattern: The target's event pattern.
        target: The target.
        message: For callables.
        place: Where it was configured; with the pattern, this identifies targets without a URL.
    """
    if target is None:
        return
    if isinstance(target, Subscription | str | Mapping):
        try:
            for subscription in static_subscriptions(rules, pattern, target):
                yield _checked(pattern, place, subscription)
        except ThornError as failure:
            # Our own error message, about an option or a secret that isn't allowed.
            yield _impossible(pattern, place, target, failure, str(failure))
        except Exception as failure:
            yield _impossible(pattern, place, target, failure)
    elif callable(target):
        place = f"{place}/{_name(target)}"
        try:
            given = target(message)
        except Exception as failure:
            yield _impossible(pattern, place, None, failure)
        else:
            yield from _given(rules, pattern, given, message, place)
    elif isinstance(target, Iterable) and not isinstance(target, bytes | bytearray):
        yield from _each(rules, pattern, target, message, place)
    else:
        kind = TypeError(f"a subscriber of {pattern!r} is a {type(target).__name__}")
        yield _impossible(pattern, place, target, kind)


def _each(
    rules: SubscriptionRules, pattern: str, targets: Iterable[Any], message: Message, place: str
) -> Iterator[Subscription | Impossible]:
    """Return the recipients of several targets; a generator may fail halfway."""
    number = 0
    try:
        for number, target in enumerate(targets):
            if number >= MOST_GIVEN:
                raise ValueError(f"a subscriber of {pattern!r} returned more than {MOST_GIVEN}")
            yield from _given(rules, pattern, target, message, f"{place}/{number}")
    except Exception as failure:
        yield _impossible(pattern, f"{place}/{number}/rest", None, failure)


def _checked(pattern: str, place: str, given: Any) -> Subscription | Impossible:
    """Return a subscription if deliveries to it can be made and stored."""
    if not isinstance(given, Subscription):
        kind = TypeError(f"{place} returned a {type(given).__name__} instead of a Subscription")
        return _impossible(pattern, place, given, kind)
    for name, value, most in (("id", given.id, ID_LENGTH), ("owner", given.owner, OWNER_LENGTH)):
        if name == "owner" and value is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= most or "\0" in value:
            wrong = ValueError(f"{place} returned a subscription with the {name} {value!r}")
            return _impossible(pattern, place, given, wrong)
    if not isinstance(given.url, str):
        wrong_url = TypeError(f"{place} returned a URL that is a {type(given.url).__name__}")
        return _impossible(pattern, place, given, wrong_url)
    try:
        parse_url(given.url)
    except SecurityError as refusal:
        return Impossible(subscription=given, reason=refusal.reason)
    return given


def _impossible(
    pattern: str, place: str, given: Any, failure: Exception, reason: str = INTERNAL
) -> Impossible:
    """Return a placeholder for a target without a valid subscription."""
    url = given.get("url") if isinstance(given, Mapping) else getattr(given, "url", given)
    text = url if isinstance(url, str) else ""
    return Impossible(
        subscription=Subscription(
            id=derived_id(pattern, place, text),
            events=(pattern,),
            url=text[:URL_LENGTH].replace("\0", "\N{REPLACEMENT CHARACTER}"),
            owner=_owner(given),
            created_at=_EPOCH,
            updated_at=_EPOCH,
        ),
        reason=reason,
        failure=failure,
    )


def _owner(given: Any) -> str | None:
    """Return the owner that a target names; None if it names none, or an invalid id."""
    owner = given.get("owner") if isinstance(given, Mapping) else getattr(given, "owner", None)
    try:
        return None if owner is None else identify(owner)[0]
    except ConfigurationError:
        return None


def _name(target: Any) -> str:
    """Return the name of a callable, which is the same in every process."""
    module = getattr(target, "__module__", type(target).__module__)
    return f"{module}.{getattr(target, '__qualname__', type(target).__qualname__)}"
