"""An app's subscriptions: creating, changing and listing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, cast

import attrs

from thorn_core import paging
from thorn_core.errors import ConfigurationError
from thorn_core.events import find_event
from thorn_core.paging import paged
from thorn_core.ports.app import App
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery
from thorn_core.removing import UNSUBSCRIBED, cancel_deliveries
from thorn_core.replaying import Tell
from thorn_core.sending import Sending
from thorn_core.settings import Settings
from thorn_core.static_subscribers import StaticSubscribers, static_subscriptions
from thorn_core.stores.rules import reaches
from thorn_core.subscriptions import (
    SubscriptionRules,
    apply_changes,
    change_secret,
    check_changes,
    identify,
    identify_sender,
    make_subscription,
)
from thorn_core.values import DeliveryState, Subscription


class SubscriptionCalls:
    """The part of an app that creates, changes and lists subscriptions.

    Attributes:
        settings: The app's settings.
        clock: Returns the time, aware, in UTC.
        store: The store.
        rules: The rules for subscriptions.
    """

    settings: Settings
    clock: Callable[[], datetime]
    store: Store
    rules: SubscriptionRules
    _static: StaticSubscribers
    _sending: Sending

    def subscribe(
        self,
        events: str | Iterable[str],
        url: str,
        *,
        owner: Any = None,
        secret: str | None = None,
        content_type: str = "application/json",
        hmac_digest: str = "sha256",
        headers: Mapping[str, str] | None = None,
        description: str = "",
        rate_limit: float | None = None,
        paused: bool = False,
    ) -> Subscription:
        """Subscribe a URL to events.

        Args:
            events: A pattern or several: `article.*`.
            url: The recipient's URL.
            owner: The owner: an id, or an object with a `pk` or `id`; None for an operator.
            secret: The secret that signs its requests; None generates one (`.secret`) of each kind
                that the schemes in use need.
            content_type: Encoding of request bodies.
            hmac_digest: Digest of the `Hook-HMAC` header: `sha256`, `sha512` or `sha1`.
            headers: Extra headers for its requests.
            description: A note for users.
            rate_limit: Maximum requests per second.
            paused: Hold its deliveries until `resume`.

        Raises:
            InvalidNameError: A pattern is invalid.
            SecurityError: The URL is refused by a recipient validator.
            ConfigurationError: Something else isn't allowed.
        """
        subscription = make_subscription(
            self.rules,
            events,
            url,
            at=self.clock(),
            owner=owner,
            secret=secret,
            content_type=content_type,
            hmac_digest=hmac_digest,
            headers=headers or {},
            description=description,
            rate_limit=rate_limit,
        )
        if not isinstance(paused, bool):
            raise ConfigurationError(f"paused={paused!r}; use True or False")
        if paused:
            subscription = attrs.evolve(subscription, paused=True)
        self.store.add_subscription(subscription)
        return subscription

    def update_subscription(self, subscription_id: str, **changes: Any) -> Subscription:
        """Change a subscription.

        Args:
            subscription_id: Its id.
            **changes: `events`, `url`, `enabled`, `disabled_reason`, `content_type`,
                `hmac_digest`, `headers`, `description`, `rate_limit`.

        Raises:
            NotFoundError: It doesn't exist.
            InvalidNameError, SecurityError, ConfigurationError: A change isn't allowed.
        """
        checked, at = check_changes(self.rules, changes), self.clock()
        return self.store.change_subscription(
            subscription_id, lambda current: apply_changes(current, checked, at=at)
        )

    def rotate_secret(
        self,
        subscription_id: str,
        secret: str | None = None,
        *,
        overlap: float | timedelta | None = None,
    ) -> Subscription:
        """Give a subscription a new secret; the old ones keep signing for a while.

        At most three secrets are kept, the newest.

        Args:
            subscription_id: Its id.
            secret: The new secret; None generates one of each kind in use.
            overlap: Seconds that the old ones keep signing; 0 revokes them immediately. None uses
                the setting `secret_overlap`.

        Raises:
            NotFoundError: It doesn't exist.
            ConfigurationError: A scheme in use can't sign with the secret, or the overlap isn't
                allowed.
        """
        at = self.clock()
        return self.store.change_subscription(
            subscription_id,
            lambda current: change_secret(self.rules, current, secret, at=at, overlap=overlap),
        )

    def pause(self, subscription_id: str) -> Subscription:
        """Hold a subscription's deliveries, including new ones, until it is resumed.

        Requests in flight continue. A paused subscription stays paused.

        Args:
            subscription_id: Which.

        Raises:
            NotFoundError: There is none.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(dispatcher="outbox") as app:
            ...     subscription = app.subscribe("article.*", "https://example.com/hook")
            ...     app.pause(subscription.id).paused, app.resume(subscription.id).paused
            (True, False)
        """
        return self.store.pause(subscription_id, now=self.clock())

    def resume(self, subscription_id: str) -> Subscription:
        """Release the deliveries that a paused subscription holds; they are attempted when due.

        Args:
            subscription_id: Which.

        Raises:
            NotFoundError: There is none.
        """
        resumed = self.store.resume(subscription_id, now=self.clock())
        # Workers find the other messages.
        waiting = DeliveryQuery(subscription_id=subscription_id, states=(DeliveryState.PENDING,))
        tell = Tell(self.store, self._sending.dispatcher(), self.settings.inline_timeout)
        tell.of(self.store.deliveries(waiting, limit=paging.PAGE))
        return resumed

    def unsubscribe(self, subscription_id: str) -> bool:
        """Delete a subscription and cancel its pending deliveries; False if it doesn't exist."""
        subscription = self.store.subscription(subscription_id)
        removed = self.store.remove_subscription(subscription_id, now=self.clock())
        if removed:
            cancel_deliveries(
                self,
                DeliveryQuery(subscription_id=subscription_id),
                reason=UNSUBSCRIBED,
                now=self.clock(),
                size=paging.PAGE,
                subscription=subscription,
            )
        return removed

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with an id."""
        return self.store.subscription(subscription_id)

    def subscriptions(self, *, owner: Any = None) -> Iterator[Subscription]:
        """Return all subscriptions, or those of an owner, oldest first."""
        name = None if owner is None else identify(owner)[0]
        fetch = partial(self.store.subscriptions, owner=name, limit=paging.PAGE)
        return paged(lambda after: fetch(after=after))

    def subscribers(self, event: str, *, sender: Any = None) -> Iterator[Subscription]:
        """Return the static and stored subscriptions that currently match a message of this event.

        Subscriptions from plugins and callables are known only for a message.
        """
        name = identify_sender(sender)[0]
        declared = find_event(event, cast("App", self))
        targets = None if declared is None else declared.static_subscribers
        own = static_subscriptions(self.rules, event, targets)
        yield from (s for s in chain(self._static.reached(event), own) if reaches(s, name))
        fetch = partial(self.store.matching, event, sender=name, limit=paging.PAGE)
        yield from paged(lambda after: fetch(after=after))
