"""What a subscription must be: made of what a user gives, and checked; static ones too."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from thorn_core.delivery import check_headers
from thorn_core.errors import ConfigurationError
from thorn_core.patterns import check_pattern, matches
from thorn_core.recipients import check_url
from thorn_core.recipients.urls import shown
from thorn_core.settings import Settings
from thorn_core.signatures import HMAC_DIGESTS, check_secret, new_secret
from thorn_core.subscribers import check_options
from thorn_core.values import Message, Subscription, derived_id, new_id

DESCRIPTION_LENGTH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class SubscriptionRules:
    """What an app allows of subscriptions.

    Attributes:
        settings: The app's.
        content_types: Those that there is a codec for.
        validate: Asks the plugins about a URL.
    """

    settings: Settings
    content_types: Collection[str]
    validate: Callable[[str], None]


def make_subscription(
    rules: SubscriptionRules,
    events: str | Iterable[str],
    url: str,
    *,
    at: datetime,
    owner: Any = None,
    secret: str | None = None,
    **options: Any,
) -> Subscription:
    """Make a subscription of what a user gives.

    Args:
        rules: The app's.
        events: A pattern or several.
        url: Where requests are to go.
        at: The time.
        owner: Whose it is: an id, or an object with a `pk` or `id`.
        secret: Signs its requests; None mints one.
        **options: `content_type`, `hmac_digest`, `headers`, `description`, `rate_limit`.

    Raises:
        InvalidNameError: A pattern isn't one.
        SecurityError: The URL is refused.
        ConfigurationError: Something else isn't allowed.
    """
    subscription = Subscription(
        id=new_id("sub", at),
        events=check_events(rules, events),
        url=check_recipient(rules, url),
        owner=None if owner is None else identify(owner)[0],
        secrets=(new_secret() if secret is None else check_secret(secret),),
        created_at=at,
        updated_at=at,
    )
    return change_subscription(rules, subscription, at=at, **options)


def change_subscription(
    rules: SubscriptionRules, subscription: Subscription, *, at: datetime, **changes: Any
) -> Subscription:
    """The subscription with changes that a user wants, checked.

    Args:
        rules: The app's.
        subscription: As it is.
        at: The time of the change.
        **changes: `events`, `url`, `enabled`, `disabled_reason`, and the options of
            `make_subscription`. Enabling it forgets its failures and why it was disabled; a new URL
            forgets the failures of the old one.

    Raises:
        InvalidNameError: A pattern isn't one.
        SecurityError: The URL is refused.
        ConfigurationError: Something else isn't allowed.
    """
    values = {name: check_option(rules, name, value) for name, value in changes.items()}
    if values.get("enabled"):
        values["disabled_reason"] = None
    if values.get("enabled") or values.get("url", subscription.url) != subscription.url:
        values |= {"failing_since": None, "failures": 0, "last_failure_at": None}
    return attrs.evolve(subscription, updated_at=at, **values)


def change_secret(
    subscription: Subscription, secret: str | None, *, at: datetime, overlap: timedelta
) -> Subscription:
    """The subscription with a new secret; those that sign now go on signing for a while.

    Args:
        subscription: As it is.
        secret: The new secret; None mints one.
        at: The time of the change.
        overlap: For how long the old ones go on.

    Raises:
        ConfigurationError: The secret isn't one.
    """
    until = at + overlap
    old = subscription.signing_secrets(at)
    expiry = {s: min(subscription.secret_expiry.get(s, until), until) for s in old}
    newest = new_secret() if secret is None else check_secret(secret)
    expiry.pop(newest, None)
    return attrs.evolve(
        subscription,
        secrets=(newest, *(s for s in old if s != newest)),
        secret_expiry=expiry,
        updated_at=at,
    )


def check_option(rules: SubscriptionRules, name: str, value: Any) -> Any:
    """Check one thing that a user wants of a subscription.

    Args:
        rules: The app's.
        name: `events`, `url`, or another of `change_subscription`'s.
        value: What is wanted.

    Returns:
        The value, normalised.

    Raises:
        InvalidNameError, SecurityError, ConfigurationError: It isn't allowed.
    """
    check = _CHECKS.get(name)
    if check is None:
        near = difflib.get_close_matches(name, _CHECKS, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_CHECKS)}"
        raise ConfigurationError(f"a subscription has no option {name!r}; {hint}")
    return check(rules, value)


def check_events(rules: SubscriptionRules, events: str | Iterable[str]) -> tuple[str, ...]:
    """Check the event patterns of a subscription; duplicates go."""
    patterns = tuple(dict.fromkeys([events] if isinstance(events, str) else events))
    if not patterns:
        raise ConfigurationError("a subscription needs an event pattern; '*' takes every event")
    choices = rules.settings.event_choices
    for pattern in patterns:
        check_pattern(pattern)
        if choices and not any(c == pattern or matches(c, pattern) for c in choices):
            raise ConfigurationError(
                f"events {pattern!r} can't be subscribed to; the setting event_choices allows"
                f" {', '.join(choices)}"
            )
    return patterns


def check_recipient(rules: SubscriptionRules, url: str) -> str:
    """Check the URL of a subscription by the app's validators and plugins; normalised."""
    text = check_url(url, rules.settings.validators).text
    rules.validate(text)
    return text


def _content_type(rules: SubscriptionRules, value: Any) -> str:
    if value not in rules.content_types:
        raise ConfigurationError(
            f"content_type is {value!r}; there is a codec for"
            f" {', '.join(sorted(rules.content_types))}"
        )
    return str(value)


def _hmac_digest(rules: SubscriptionRules, value: Any) -> str:
    if value not in HMAC_DIGESTS:
        raise ConfigurationError(f"hmac_digest is {value!r}; allowed are {', '.join(HMAC_DIGESTS)}")
    return str(value)


def _headers(rules: SubscriptionRules, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"headers is {value!r}; use a mapping of name to value")
    return check_headers(value)


def _description(rules: SubscriptionRules, value: Any) -> str:
    if not isinstance(value, str) or len(value) > DESCRIPTION_LENGTH:
        raise ConfigurationError(
            f"description is no text of at most {DESCRIPTION_LENGTH} characters"
        )
    return value


def _rate_limit(rules: SubscriptionRules, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"rate_limit is {value!r}; use requests a second, or None")
    if not 1 / 3600 <= value <= 100_000:
        raise ConfigurationError(
            f"rate_limit is {value!r}; allowed is from one an hour (1/3600) to 100000 a second"
        )
    return float(value)


def _enabled(rules: SubscriptionRules, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"enabled is {value!r}; use True or False")
    return value


def _disabled_reason(rules: SubscriptionRules, value: Any) -> str | None:
    return None if value is None else _description(rules, value)


_CHECKS: Mapping[str, Callable[[SubscriptionRules, Any], Any]] = {
    "events": check_events,
    "url": check_recipient,
    "content_type": _content_type,
    "hmac_digest": _hmac_digest,
    "headers": _headers,
    "description": _description,
    "rate_limit": _rate_limit,
    "enabled": _enabled,
    "disabled_reason": _disabled_reason,
}


def identify(sender: Any) -> tuple[str, str | None]:
    """The id and the name of a user or tenant.

    Args:
        sender: The id itself (text, number, UUID …), or an object with a `pk` or `id`, whose
            `get_username()` or `str()` is its name.

    Example:
        >>> identify(42)
        ('42', None)
    """
    for attribute in ("pk", "id"):
        key = getattr(sender, attribute, None)
        if key is not None:
            name = sender.get_username() if hasattr(sender, "get_username") else sender
            return str(key), str(name)
    return str(sender), None


def static_subscriptions(
    rules: SubscriptionRules, pattern: str, target: Any, message: Message | None = None
) -> Iterator[Subscription]:
    """The subscriptions that a static target stands for.

    Args:
        rules: The app's. URLs are validated when the connection is made, not here, so that an
            app can be made before its network is there.
        pattern: What they are subscribed to.
        target: A URL, a mapping (`{"url": …, "secret": …}`), a Subscription, a callable that
            gets the message and returns any of these, or an iterable of these.
        message: For callables.

    Raises:
        ConfigurationError: The target is none of these.
    """
    if target is None:
        return
    if isinstance(target, Subscription):
        yield target
    elif isinstance(target, str):
        yield _static(rules, pattern, target, {})
    elif isinstance(target, Mapping):
        options = dict(target)
        url = options.pop("url", None)
        if not isinstance(url, str):
            raise ConfigurationError(f"a static subscriber of {pattern!r} has no 'url'; add one")
        yield _static(rules, pattern, url, options)
    elif callable(target):
        if message is not None:
            yield from static_subscriptions(rules, pattern, target(message), message)
    elif isinstance(target, Iterable):
        for item in target:
            yield from static_subscriptions(rules, pattern, item, message)
    else:
        raise ConfigurationError(
            f"subscriber {target!r} of {pattern!r} is no URL, mapping, list or callable"
        )


def _static(
    rules: SubscriptionRules, pattern: str, url: str, options: dict[str, Any]
) -> Subscription:
    check_options(f"the static subscriber {shown(url)}", options)
    secret, owner = options.pop("secret", None), options.pop("owner", None)
    bare = Subscription(
        # The same in every process and after every restart, so that a delivery is made once.
        id=derived_id("sub", pattern, url),
        events=(pattern,),
        url=url,
        owner=None if owner is None else identify(owner)[0],
        secrets=() if secret is None else (check_secret(secret),),
        created_at=_EPOCH,
        updated_at=_EPOCH,
    )
    return change_subscription(rules, bare, at=_EPOCH, **options)


class StaticSubscribers:
    """The setting `subscribers`: what it stands for, by event.

    Args:
        rules: The app's, the setting among them.

    Raises:
        ConfigurationError: A subscriber isn't one.
    """

    def __init__(self, rules: SubscriptionRules) -> None:
        self._rules = rules
        self._fixed = [
            (pattern, tuple(static_subscriptions(rules, pattern, target)))
            for pattern, target in rules.settings.subscribers.items()
        ]

    def reached(self, event: str, message: Message | None = None) -> Iterator[Subscription]:
        """The subscriptions that an event reaches; with the message, those of callables too."""
        if message is None:
            for pattern, subscriptions in self._fixed:
                if matches(pattern, event):
                    yield from subscriptions
        else:
            for pattern, target in self._rules.settings.subscribers.items():
                if matches(pattern, event):
                    yield from static_subscriptions(self._rules, pattern, target, message)
