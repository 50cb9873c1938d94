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
    """The part of an app that lists, replays, cancels and removes deliveries.

    Attributes:
        settings: The app's settings.
        plugins: The app's plugins.
        clock: Returns the time, aware, in UTC.
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
        """Return the deliveries that meet all given criteria, sorted by their messages' age.

        Args:
            message_id: Only deliveries of this message.
            subscription_id: Only deliveries to this subscription.
            event: Only events that match this pattern.
            state: Only deliveries in this state or these states.
            since: Only messages sent at or after this time, to the millisecond.
            until: Only messages sent before this time.

        Raises:
            ConfigurationError, InvalidNameError: A criterion is invalid.
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
        """Deliver again: one delivery, several, or all that meet the given criteria.

        Works page by page, because there may be millions.

        Args:
            delivery_id: One id or several; the other criteria narrow it.
            message_id: Only deliveries of this message.
            subscription_id: Only deliveries to this subscription.
            event: Only events that match this pattern.
            state: Only deliveries in this state or these states; without it and without ids,
                `failed` and `cancelled`.
            since: Only messages sent at or after this time, to the millisecond.
            until: Only messages sent before this time.
            missing: Also deliver matching messages since `since` for which the subscription has no
                delivery: it was created or changed later, was disabled, or was excluded. Messages
                that are still being routed are skipped.
            progress: Called after each page with the number so far.

        Returns:
            The number of deliveries that are now pending.

        Raises:
            ConfigurationError: There is no criterion, or one is invalid; or `missing` lacks
                `subscription_id` or `since`.
            NotFoundError: The subscription for `missing` doesn't exist.
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
        """Cancel pending deliveries: one, several, or all that meet the given criteria.

        Deliveries in flight continue, and a message that isn't routed yet has no deliveries.

        Args:
            delivery_id: One id or several; the other criteria narrow it.
            message_id: Only deliveries of this message.
            subscription_id: Only deliveries to this subscription.
            event: Only events that match this pattern.
            since: Only messages sent at or after this time, to the millisecond.
            until: Only messages sent before this time.
            reason: The reason, at most 500 characters; the subscription's owner may read it.
            progress: Called after each page with the number so far.

        Returns:
            The number of cancelled deliveries.

        Raises:
            ConfigurationError, InvalidNameError: There is no criterion, or one is invalid.

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
        """Delete every message of a sender, with its payload, deliveries and attempts.

        The deliveries may be in any state; requests in flight are not recorded. Subscriptions stay.

        Args:
            sender: The user or tenant, or its id.
            batch: Messages deleted per transaction, 1 to 10,000.
            progress: Called after each batch with the number so far.

        Returns:
            The number of deleted messages.

        Raises:
            ConfigurationError: There is no sender; None doesn't mean all tenants.

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
        """Delete finished deliveries of messages sent before a time, with their attempts.

        Pending deliveries and those in flight stay. Messages without remaining deliveries are
        deleted, too; without other criteria, so are older messages that had no recipients.

        Args:
            until: Only messages sent before this time.
            state: Only this final state or these; None for all final states.
            event: Only events that match this pattern.
            subscription_id: Only deliveries to this subscription.
            batch: Deliveries deleted per transaction, 1 to 10,000.
            progress: Called after each batch with the number so far.

        Returns:
            The number of deleted deliveries.

        Raises:
            ConfigurationError, InvalidNameError: A criterion is invalid.

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
    """Create a query from a user's criteria, including ids of deliveries.

    Raises:
        ConfigurationError, InvalidNameError: A criterion is invalid.
    """
    query = delivery_query(message_id, subscription_id, event, state, since, until)
    if delivery_id is None:
        return query
    ids = (delivery_id,) if isinstance(delivery_id, str) else tuple(delivery_id)
    return attrs.evolve(query, ids=ids)
