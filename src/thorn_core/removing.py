"""Cancel deliveries, purge old ones, and erase the messages of a sender."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from thorn_core import signals
from thorn_core.errors import ConfigurationError
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery, delivery_query
from thorn_core.replaying import pages
from thorn_core.subscriptions import identify
from thorn_core.values import DeliveryState, Subscription
from thorn_core.worker.logs import log_cancelled

# Deliveries purged per transaction; other transactions may have to wait for it.
BATCH_LIMIT = 10_000
# Maximum characters of a given reason.
REASON_LENGTH = 500
UNSUBSCRIBED = "the subscription was removed"


def cancel_deliveries(
    app: Any,
    query: DeliveryQuery,
    *,
    reason: str,
    now: datetime,
    size: int,
    subscription: Subscription | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Cancel pending deliveries, and send `delivery_cancelled` for each.

    Args:
        app: The app.
        query: Selects the deliveries.
        reason: The reason.
        now: The time.
        size: Deliveries per page.
        subscription: Their common subscription, if it is loaded already.
        progress: Called after each page with the number so far.

    Returns:
        The number of cancelled deliveries.
    """
    store: Store = app.store
    count = 0
    for page in pages(store, query.only((DeliveryState.PENDING,)), size):
        cancelled = store.cancel(page, now=now, limit=size, reason=reason)
        for delivery in cancelled:
            log_cancelled(delivery, reason, subscription)
            signals.tell(signals.delivery_cancelled, app, delivery=delivery, attempt=None)
        count += len(cancelled)
        if progress is not None:
            progress(count)
    return count


def check_reason(reason: str) -> str:
    """Check the reason for a cancellation.

    Raises:
        ConfigurationError: It isn't a string, is empty or is too long.
    """
    if not isinstance(reason, str) or not 0 < len(reason) <= REASON_LENGTH or "\0" in reason:
        raise ConfigurationError(
            f"reason={reason!r}; use a string of 1 to {REASON_LENGTH} characters"
        )
    return reason


def erase_sender(
    store: Store,
    sender: Any,
    *,
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Delete every message of a sender, with its deliveries and attempts.

    Args:
        store: Where they are.
        sender: The user or tenant, or its id.
        batch: Messages deleted per transaction, 1 to 10,000.
        progress: Called after each batch with the number so far.

    Returns:
        The number of deleted messages.

    Raises:
        ConfigurationError: There is no sender, or the batch size isn't allowed.
    """
    check_batch(batch)
    if sender is None or not (key := identify(sender)[0]):
        raise ConfigurationError(f"sender={sender!r}; erase needs a user or tenant, or its id")
    count = 0
    while gone := store.erase(key, limit=batch):
        count += gone
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
    """Delete finished deliveries of messages sent before a time, with those messages.

    Args:
        store: Where they are.
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
    """
    if not isinstance(until, datetime):
        raise ConfigurationError(
            f"until={until!r}; purge needs an age limit: until=now - timedelta(days=30)"
        )
    check_batch(batch)
    query = delivery_query(None, subscription_id, event, state, None, until)
    unfinished = [str(s) for s in query.states or () if not s.finished]
    if unfinished:
        raise ConfigurationError(
            f"state={state!r}: {' or '.join(unfinished)} deliveries are never purged; only"
            " delivered, failed and cancelled deliveries are"
        )
    count = 0
    for page in pages(store, query.only_finished(), batch):
        count += store.purge(page, limit=batch)
        if progress is not None:
            progress(count)
    if query == DeliveryQuery(until=until):
        # Deliveries that finished in the meantime, and messages without recipients.
        while gone := store.purge(query, limit=batch):
            count += gone
    return count


def check_batch(batch: int) -> None:
    """Check the number of deletions per transaction.

    Raises:
        ConfigurationError: It isn't 1 to 10,000.
    """
    if not 1 <= batch <= BATCH_LIMIT:
        raise ConfigurationError(f"batch={batch!r}; use 1 to {BATCH_LIMIT}")
