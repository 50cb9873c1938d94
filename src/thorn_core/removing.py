"""Deliveries that go: cancelled, purged, or erased with all that a sender sent."""

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

# Deliveries purged at once: a transaction that others may have to wait for.
BATCH_LIMIT = 10_000
# Characters of a reason that somebody gives.
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
    """Cancel deliveries that are pending, and notify whoever listens.

    Args:
        app: Whose.
        query: Which.
        reason: Why.
        now: The time.
        size: How many make a page.
        subscription: That of all of them, if it is at hand.
        progress: Called after each page with how many that makes.

    Returns:
        How many were cancelled.
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
    """Check why deliveries are cancelled.

    Raises:
        ConfigurationError: It is no text, is empty or is too long.
    """
    if not isinstance(reason, str) or not 0 < len(reason) <= REASON_LENGTH or "\0" in reason:
        raise ConfigurationError(
            f"reason={reason!r}; use a text of 1 to {REASON_LENGTH} characters"
        )
    return reason


def erase_sender(
    store: Store,
    sender: Any,
    *,
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Remove every message of a sender, with its deliveries and attempts.

    Args:
        store: Where they are.
        sender: The user or tenant, or its id.
        batch: Messages removed at once; 1 to 10,000.
        progress: Called after each batch with how many that makes.

    Returns:
        How many messages went.

    Raises:
        ConfigurationError: No sender is given, or the batch isn't allowed.
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
    """Remove finished deliveries of messages from before a time, with those messages.

    Args:
        store: Where they are.
        until: Of messages sent before this time.
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
            f"until={until!r}; purge needs an age limit: until=now - timedelta(days=30)"
        )
    check_batch(batch)
    query = delivery_query(None, subscription_id, event, state, None, until)
    unfinished = [str(s) for s in query.states or () if not s.finished]
    if unfinished:
        raise ConfigurationError(
            f"state={state!r}: what is {' or '.join(unfinished)} is never purged; only"
            " delivered, failed and cancelled deliveries are"
        )
    count = 0
    for page in pages(store, query.only_finished(), batch):
        count += store.purge(page, limit=batch)
        if progress is not None:
            progress(count)
    if query == DeliveryQuery(until=until):
        # What was finished meanwhile, and the messages that reached nobody.
        while gone := store.purge(query, limit=batch):
            count += gone
    return count


def check_batch(batch: int) -> None:
    """Check how many are removed at once.

    Raises:
        ConfigurationError: It isn't 1 to 10,000.
    """
    if not 1 <= batch <= BATCH_LIMIT:
        raise ConfigurationError(f"batch={batch!r}; use 1 to {BATCH_LIMIT}")
