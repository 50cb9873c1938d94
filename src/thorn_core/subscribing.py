"""An app's subscriptions: creating, changing and listing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from thorn_core import paging
from thorn_core.errors import NotFoundError
from thorn_core.events import find_event
from thorn_core.paging import paged
from thorn_core.settings import Settings
from thorn_core.stores.base import Store
from thorn_core.subscriptions import (
    StaticSubscribers,
    SubscriptionRules,
    change_secret,
    change_subscription,
    identify,
    identify_sender,
    make_subscription,
    reaches,
    static_subscriptions,
)
from thorn_core.values import Subscription

if TYPE_CHECKING:
    from thorn_core.app import Thorn


class SubscriptionCalls:
    """The part of an app that creates, changes and lists subscriptions.

    Attributes:
        settings: The app's.
        clock: The time, aware UTC.
        store: Where subscriptions live.
        rules: The rules for subscriptions.
    """

    settings: Settings
    clock: Callable[[], datetime]
    store: Store
    rules: SubscriptionRules
    _static: StaticSubscribers

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
            description: An optional note.
            rate_limit: Maximum requests per second.

        Raises:
            InvalidNameError: A pattern isn't one.
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
        changed = change_subscription(
            self.rules, self._required(subscription_id), at=self.clock(), **changes
        )
        self.store.save_subscription(changed)
        return changed

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
        rotated = change_secret(
            self.rules,
            self._required(subscription_id),
            secret,
            at=self.clock(),
            overlap=overlap,
        )
        self.store.save_subscription(rotated)
        return rotated

    def unsubscribe(self, subscription_id: str) -> bool:
        """Delete a subscription and discard its pending deliveries; False if it doesn't exist."""
        return self.store.remove_subscription(subscription_id)

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with an id."""
        return self.store.subscription(subscription_id)

    def subscriptions(self, *, owner: Any = None) -> Iterator[Subscription]:
        """Return all subscriptions, or those of an owner, oldest first."""
        name = None if owner is None else identify(owner)[0]
        fetch = partial(self.store.subscriptions, owner=name, limit=paging.PAGE)
        return paged(lambda after: fetch(after=after))

    def subscribers(self, event: str, *, sender: Any = None) -> Iterator[Subscription]:
        """Return the static and stored subscriptions that would get a message of this event now.

        Subscriptions from plugins and callables are known only for a message.
        """
        name = identify_sender(sender)[0]
        declared = find_event(event, cast("Thorn", self))
        targets = None if declared is None else declared.static_subscribers
        own = static_subscriptions(self.rules, event, targets)
        yield from (s for s in chain(self._static.reached(event), own) if reaches(s, name))
        fetch = partial(self.store.matching, event, sender=name, limit=paging.PAGE)
        yield from paged(lambda after: fetch(after=after))

    def _required(self, subscription_id: str) -> Subscription:
        subscription = self.store.subscription(subscription_id)
        if subscription is None:
            raise NotFoundError(f"there is no subscription {subscription_id!r}")
        return subscription
