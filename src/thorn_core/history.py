"""An app's history: listing, replaying and purging messages, deliveries and attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from time import monotonic

import attrs

from thorn_core import paging
from thorn_core.dispatchers.base import Dispatcher, Waiting
from thorn_core.errors import ConfigurationError
from thorn_core.paging import paged
from thorn_core.sending import MessagesById, Sending
from thorn_core.settings import Settings
from thorn_core.stores.base import DeliveryQuery, Store, delivery_query, settled_pages
from thorn_core.values import Attempt, Delivery, DeliveryState, Message, Stats

# Deliveries purged in a transaction, which others may have to wait for.
BATCH_LIMIT = 10_000
FAILED = (DeliveryState.EXHAUSTED, DeliveryState.DISCARDED)


class HistoryCalls:
    """The part of an app that lists, replays and purges the content of its store.

    Attributes:
        settings: The app's.
        clock: The time, aware UTC.
        store: The store.
    """

    settings: Settings
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
        """Return deliveries, oldest first, that meet every given criterion.

        Args:
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            state: In this state or one of these.
            since: Created at or after this time.
            until: Created before this time.

        Raises:
            ConfigurationError, InvalidNameError: A criterion isn't one.
        """
        query = delivery_query(message_id, subscription_id, event, state, since, until)
        fetch = partial(self.store.deliveries, query, limit=paging.PAGE)
        return paged(lambda after: fetch(after=after), attrgetter("place"))

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
                (`exhausted` and `discarded`).
            since: Created at or after this time.
            until: Created before this time.
            progress: Called after each page with the number so far.

        Returns:
            The number of deliveries that are pending again.

        Raises:
            ConfigurationError: No criterion is given, or one isn't one.
        """
        query = delivery_query(message_id, subscription_id, event, state, since, until)
        if delivery_id is not None:
            ids = (delivery_id,) if isinstance(delivery_id, str) else tuple(delivery_id)
            query = attrs.evolve(query, ids=ids)
        return replay_deliveries(
            self.store,
            query,
            now=self.clock(),
            size=paging.PAGE,
            dispatcher=self._sending.dispatcher(),
            patience=self.settings.inline_timeout,
            progress=progress,
        )

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
        """Delete finished deliveries created before `until`, with attempts and orphaned messages.

        Keeps deliveries that are pending or in flight, and messages that have deliveries. Without
        other criteria, it also deletes older messages without recipients.

        Args:
            until: Created before this time.
            state: In this final state or one of these; default: any.
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


def replay_deliveries(
    store: Store,
    query: DeliveryQuery,
    *,
    now: datetime,
    size: int,
    dispatcher: Dispatcher,
    patience: float,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Make finished deliveries pending again, and notify a dispatcher.

    Args:
        store: The store.
        query: The criteria; without states and ids, failed deliveries.
        now: The time when they are due.
        size: Deliveries per page.
        dispatcher: Notified of their messages after each page.
        patience: Total seconds to wait if the dispatcher wants the caller to wait.
        progress: Called after each page with the number so far.

    Returns:
        The number of deliveries that are pending again.

    Raises:
        ConfigurationError: No criterion is given.
    """
    if query == DeliveryQuery():
        raise ConfigurationError(
            "replay needs a filter: pass a delivery_id, subscription_id, event or since"
        )
    if query.states is None and query.ids is None:
        query = attrs.evolve(query, states=FAILED)
    count, until = 0, monotonic() + patience
    for page in settled_pages(store, query, size):
        replayed = store.replay(page, now=now, limit=size)
        if replayed:
            count += len(replayed)
            sent = list(dict.fromkeys(delivery.message_id for delivery in replayed))
            future = dispatcher.dispatch(MessagesById(store, sent))
            if future is not None:
                Waiting(future, until).wait()
        if progress is not None:
            progress(count)
    return count


def purge_deliveries(
    store: Store,
    *,
    until: datetime,
    state: str | Iterable[str] | None,
    event: str | None,
    subscription_id: str | None,
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Delete finished deliveries created before `until`, with attempts and orphaned messages.

    Args:
        store: The store.
        until: Created before this time.
        state: In this final state or one of these; None is any.
        event: Of events that match this pattern.
        subscription_id: To this subscription.
        batch: Deliveries deleted per transaction, 1 to 10,000.
        progress: Called after each batch with the number so far.

    Returns:
        The number of deleted deliveries.

    Raises:
        ConfigurationError, InvalidNameError: A criterion isn't one.
    """
    if not isinstance(until, datetime):
        raise ConfigurationError(
            f"until={until!r}; purge needs an age limit: until=now - timedelta(days=30)"
        )
    if not 1 <= batch <= BATCH_LIMIT:
        raise ConfigurationError(f"batch={batch!r}; use 1 to {BATCH_LIMIT}")
    query = delivery_query(None, subscription_id, event, state, None, until)
    unsettled = [str(s) for s in query.states or () if not s.settled]
    if unsettled:
        raise ConfigurationError(
            f"state={state!r}: what is {' or '.join(unsettled)} is never purged; only"
            " delivered, exhausted and discarded deliveries are"
        )
    count = 0
    for page in settled_pages(store, query, batch):
        count += store.purge(page, limit=batch)
        if progress is not None:
            progress(count)
    if query == DeliveryQuery(until=until):
        # Deliveries that finished meanwhile, and messages without recipients.
        while gone := store.purge(query, limit=batch):
            count += gone
    return count
