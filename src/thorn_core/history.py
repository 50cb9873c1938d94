"""An app's history: messages, deliveries and attempts, listed, replayed, cancelled, removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs

from thorn_core import paging
from thorn_core.errors import ConfigurationError
from thorn_core.paging import paged
from thorn_core.plugins import Plugins
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery, delivery_query
from thorn_core.removing import (
    cancel_deliveries,
    check_reason,
    erase_sender,
    purge_deliveries,
)
from thorn_core.replaying import Tell, deliver_missing, replay_deliveries
from thorn_core.sending import Sending
from thorn_core.settings import Settings
from thorn_core.values import Attempt, Delivery, Message, Stats


class HistoryCalls:
    """The part of an app that lists, replays, cancels and removes what the store keeps.

    Attributes:
        settings: The app's.
        plugins: The app's.
        clock: The time, aware UTC.
        store: The store.
    """

    settings: Settings
    plugins: Plugins
    clock: Callable[[], datetime]
    store: Store
    _sending: Sending
    _unsent: Mapping[str, int]

    def message(self, message_id: str) -> Message | None:
        """Return the message with an id."""
        return self.store.message(message_id)

    def messages_to_route(self) -> Sequence[Message]:
        """Lease and return messages that wait to be routed; for tests and inspection."""
        return self.store.claim_messages(now=self.clock(), lease=timedelta(), limit=paging.PAGE)

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery with an id."""
        return self.store.delivery(delivery_id)

    def deliveries(
        self,
        *,
        message_id: str | None = None,
        subscription_id: str | None = None,
        event: str | None = None,
        state: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Delivery]:
        """Deliveries, by the age of their messages; every criterion given must hold.

        Args:
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            state: In this state or one of these.
            since: Of messages sent at or after this time, to the millisecond.
            until: Of messages sent before this time.

        Raises:
            ConfigurationError, InvalidNameError: A criterion isn't one.
        """
        query = delivery_query(message_id, subscription_id, event, state, since, until)
        fetch = partial(self.store.deliveries, query, limit=paging.PAGE)
        return paged(lambda after: fetch(after=after))

    def attempts(self, delivery_id: str | Iterable[str]) -> Iterator[Attempt]:
        """Return the attempts of one or several deliveries, oldest first."""
        ids = [delivery_id] if isinstance(delivery_id, str) else list(delivery_id)
        return paged(lambda after: self.store.attempts(ids, after=after, limit=paging.PAGE))

    def replay(
        self,
        delivery_id: str | Iterable[str] | None = None,
        *,
        message_id: str | None = None,
        subscription_id: str | None = None,
        event: str | None = None,
        state: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        missing: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Deliver again: one delivery, several, or all that meet the criteria.

        Works page by page, because there may be millions.

        Args:
            delivery_id: One id or several; the other criteria narrow it.
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            state: In this state or one of these; without it and without ids, those that failed
                (`failed` and `cancelled`).
            since: Of messages sent at or after this time, to the millisecond.
            until: Of messages sent before this time.
            missing: Also deliver to this subscription what matches it and was never meant for it,
                as it was subscribed or changed later, was disabled or was left out; `since` says
                from when. Of messages that are still being routed nothing is known to be missing.
            progress: Called after each page with how many that makes.

        Returns:
            How many are pending again, or for the first time.

        Raises:
            ConfigurationError: No criterion is given, or one isn't one; or `missing` is, without a
                subscription and a time.
            NotFoundError: There is no subscription that anything could be missing for.
        """
        query = queried(delivery_id, message_id, subscription_id, event, state, since, until)
        tell = Tell(self.store, self._sending.dispatcher(), self.settings.inline_timeout)
        now = self.clock()
        lacking = 0
        if missing:
            lacking = deliver_missing(
                self.store,
                query,
                accepts=self.plugins.accepts,
                now=now,
                size=paging.PAGE,
                tell=tell,
                progress=progress,
            )
        return lacking + replay_deliveries(
            self.store,
            query,
            now=now,
            size=paging.PAGE,
            tell=tell,
            progress=None if progress is None else lambda count: progress(lacking + count),
        )

    def cancel(
        self,
        delivery_id: str | Iterable[str] | None = None,
        *,
        message_id: str | None = None,
        subscription_id: str | None = None,
        event: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        reason: str = "cancelled by an operator",
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Cancel deliveries that are pending: one, several, or all that meet the criteria.

        What is in flight goes on, and a message that isn't routed yet has no deliveries to cancel.

        Args:
            delivery_id: Which; the other criteria narrow it.
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            since: Of messages sent at or after this time, to the millisecond.
            until: Of messages sent before this time.
            reason: Why, in words that the subscription's owner may read; 500 characters at most.
            progress: Called after each page with how many that makes.

        Returns:
            How many were cancelled.

        Raises:
            ConfigurationError, InvalidNameError: No criterion is given, or one isn't one.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(dispatcher="outbox") as app:
            ...     app.cancel(event="article.*")
            0
        """
        query = queried(delivery_id, message_id, subscription_id, event, None, since, until)
        if query == DeliveryQuery():
            raise ConfigurationError(
                "cancel needs a filter: pass a delivery_id, message_id, subscription_id, event or"
                " since"
            )
        return cancel_deliveries(
            self,
            query,
            reason=check_reason(reason),
            now=self.clock(),
            size=paging.PAGE,
            progress=progress,
        )

    def erase(
        self,
        sender: Any,
        *,
        batch: int = paging.PAGE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Remove every message of a sender, with its payload, deliveries and attempts.

        Whatever state they are in: requests under way end without a trace. Subscriptions stay.

        Args:
            sender: The user or tenant, or its id.
            batch: Messages removed at once, in a transaction of their own; 1 to 10,000.
            progress: Called after each batch with how many that makes.

        Returns:
            How many messages went.

        Raises:
            ConfigurationError: No sender is given: no tenant never means all tenants.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(dispatcher="outbox") as app:
            ...     receipt = app.send("user.created", {"name": "Ada"}, sender="42")
            ...     app.erase("42"), app.message(receipt.message.id)
            (1, None)
        """
        return erase_sender(self.store, sender, batch=batch, progress=progress)

    def purge(
        self,
        *,
        until: datetime,
        state: str | Iterable[str] | None = None,
        event: str | None = None,
        subscription_id: str | None = None,
        batch: int = paging.PAGE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Remove finished deliveries of messages from before a time, with their attempts.

        What is pending or in flight stays, and so does a message while it has deliveries; those
        left without any go. Without other criteria, older messages that reached nobody go as well.

        Args:
            until: Of messages sent before this time.
            state: In this final state or one of these; without it, in any.
            event: Of events that match this pattern.
            subscription_id: To this subscription.
            batch: Deliveries deleted per transaction, 1 to 10,000.
            progress: Called after each batch with the number so far.

        Returns:
            The number of deleted deliveries.

        Raises:
            ConfigurationError, InvalidNameError: A criterion isn't one.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(dispatcher="outbox") as app:
            ...     receipt = app.send("article.created", {"title": "Hello"})
            ...     app.purge(until=app.clock() - timedelta(days=30))
            0
        """
        return purge_deliveries(
            self.store,
            until=until,
            state=state,
            event=event,
            subscription_id=subscription_id,
            batch=batch,
            progress=progress,
        )

    def stats(self, *, window: timedelta = timedelta(hours=1)) -> Stats:
        """Return counts of the store, and statistics of recent attempts.

        Args:
            window: The period of the statistics of attempts.
        """
        stats = self.store.stats(now=self.clock(), window=window)
        return attrs.evolve(stats, unsent=dict(self._unsent))


def queried(
    delivery_id: str | Iterable[str] | None,
    message_id: str | None,
    subscription_id: str | None,
    event: str | None,
    state: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> DeliveryQuery:
    """Make a query of what a user gives, ids of deliveries too.

    Raises:
        ConfigurationError, InvalidNameError: A criterion isn't one.
    """
    query = delivery_query(message_id, subscription_id, event, state, since, until)
    if delivery_id is None:
        return query
    ids = (delivery_id,) if isinstance(delivery_id, str) else tuple(delivery_id)
    return attrs.evolve(query, ids=ids)
