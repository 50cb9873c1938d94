"""History, worked through by the page: what is delivered once more, and what goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import attrs

from thorn_core.dispatchers.base import Dispatcher
from thorn_core.errors import ConfigurationError
from thorn_core.sending import MessagesById, wait_for
from thorn_core.stores.base import DeliveryQuery, Store, delivery_query, settled_pages
from thorn_core.values import DeliveryState

# Deliveries purged at once: a transaction that others may have to wait for.
BATCH_LIMIT = 10_000
FAILED = (DeliveryState.EXHAUSTED, DeliveryState.DISCARDED)


def replay_deliveries(
    store: Store,
    query: DeliveryQuery,
    *,
    now: datetime,
    size: int,
    dispatcher: Dispatcher,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Make settled deliveries pending again, and tell a dispatcher.

    Args:
        store: Where they are.
        query: Which; without states and without ids, those that failed.
        now: When they are due.
        size: How many make a page.
        dispatcher: Told of their messages after each page.
        progress: Called after each page with how many that makes.

    Returns:
        How many are pending again.

    Raises:
        ConfigurationError: No criterion is given.
    """
    if query == DeliveryQuery():
        raise ConfigurationError(
            "replay needs to know what: give a delivery_id, subscription_id, event or since"
        )
    if query.states is None and query.ids is None:
        query = attrs.evolve(query, states=FAILED)
    count = 0
    for page in settled_pages(store, query, size):
        replayed = store.replay(page, now=now, limit=size)
        if replayed:
            count += len(replayed)
            sent = list(dict.fromkeys(delivery.message_id for delivery in replayed))
            wait_for(dispatcher.dispatch(MessagesById(store, sent)))
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
    """Remove settled deliveries of before a time with their attempts, and their messages.

    Args:
        store: Where they are.
        until: Created before this time.
        state: In this final state or one of these; None is any.
        event: Of events that match this pattern.
        subscription_id: To this subscription.
        batch: How many are removed at once; 1 to 10,000.
        progress: Called after each batch with how many that makes.

    Returns:
        How many deliveries went.

    Raises:
        ConfigurationError, InvalidNameError: A criterion isn't one.
    """
    if not isinstance(until, datetime):
        raise ConfigurationError(
            f"until={until!r}; purge needs to know the age: until=now - timedelta(days=30)"
        )
    if not 1 <= batch <= BATCH_LIMIT:
        raise ConfigurationError(f"batch={batch!r}; allowed is 1 to {BATCH_LIMIT}")
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
        # What was settled meanwhile, and the messages that reached nobody.
        while gone := store.purge(query, limit=batch):
            count += gone
    return count
