"""Static subscribers: the subscriptions of the setting `subscribers`, and those of events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from thorn_core.errors import ConfigurationError
from thorn_core.keys import derived_id
from thorn_core.patterns import matches
from thorn_core.recipients.urls import shown
from thorn_core.signatures import make_keys
from thorn_core.subscribers import check_options
from thorn_core.subscriptions import SubscriptionRules, change_subscription, identify
from thorn_core.values import Subscription

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def static_subscriptions(
    rules: SubscriptionRules, pattern: str, target: Any
) -> Iterator[Subscription]:
    """Return the subscriptions of a static target, without those from callables.

    Args:
        rules: The app's rules. URLs are validated when connecting, not here, so that an app can be
            created before its network is available.
        pattern: Their event pattern.
        target: A URL, a mapping (`{"url": …, "secret": …}`), a Subscription, a callable, or an
            iterable of these.

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
    elif isinstance(target, Iterable) and not callable(target):
        for item in target:
            yield from static_subscriptions(rules, pattern, item)
    elif not callable(target):
        raise ConfigurationError(
            f"a subscriber of {pattern!r} is a {type(target).__name__}; use a URL, a mapping, a"
            " list or a callable"
        )


def _static(
    rules: SubscriptionRules, pattern: str, url: str, options: dict[str, Any]
) -> Subscription:
    check_options(f"the static subscriber {shown(url)}", options)
    if "secret" in options and options["secret"] is None:
        raise ConfigurationError(
            f"the static subscriber {shown(url)} has the secret None; set one, or remove 'secret'"
            f" to send unsigned requests"
        )
    secret, owner = options.pop("secret", None), options.pop("owner", None)
    name = None if owner is None else identify(owner)[0]
    bare = Subscription(
        # The same in every process and after every restart, so that each delivery is created once.
        id=derived_id(pattern, url, *([] if name is None else [name])),
        events=(pattern,),
        url=url,
        owner=name,
        secrets=() if secret is None else make_keys(rules.schemes, secret),
        created_at=_EPOCH,
        updated_at=_EPOCH,
    )
    return change_subscription(rules, bare, at=_EPOCH, **options)


class StaticSubscribers:
    """The subscriptions of the setting `subscribers`, by event.

    Args:
        rules: The app's rules, including the setting.

    Raises:
        ConfigurationError: A subscriber is invalid.
    """

    def __init__(self, rules: SubscriptionRules) -> None:
        self._rules = rules
        self._fixed = [
            (pattern, tuple(static_subscriptions(rules, pattern, target)))
            for pattern, target in rules.settings.subscribers.items()
        ]

    def reached(self, event: str) -> Iterator[Subscription]:
        """Return the subscriptions for an event, without those from callables."""
        for pattern, subscriptions in self._fixed:
            if matches(pattern, event):
                yield from subscriptions

    def targets(self, event: str) -> list[tuple[str, Any]]:
        """Return the patterns that match an event, with their targets."""
        subscribers = self._rules.settings.subscribers
        return [
            (pattern, target) for pattern, target in subscribers.items() if matches(pattern, event)
        ]
