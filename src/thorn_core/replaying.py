"""Replay finished deliveries, and create missing ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from time import monotonic

import attrs

from thorn_core.delivery import make_delivery
from thorn_core.dispatchers.waiting import Waiting
from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.patterns import matches
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.store import Store
from thorn_core.queries import DeliveryQuery
from thorn_core.sending import MessagesById
from thorn_core.values import Delivery, DeliveryState, Message, Routing, Subscription

UNDELIVERED = (DeliveryState.FAILED, DeliveryState.CANCELLED)


class Tell:
    """Notifies a dispatcher of messages with due deliveries; waits if the dispatcher requires it.

    Args:
        store: Where the messages are.
        dispatcher: The dispatcher.
        patience: Maximum seconds to wait in total.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher, patience: float) -> None:
        self._store, self._dispatcher = store, dispatcher
        self._until = monotonic() + patience

    def of(self, deliveries: Iterable[Delivery]) -> None:
        """Notify the dispatcher of the messages of some deliveries."""
        ids = list(dict.fromkeys(delivery.message_id for delivery in deliveries))
        if not ids:
            return
        future = self._dispatcher.dispatch(MessagesById(self._store, ids))
        if future is not None:
            Waiting(future, self._until).wait()


def pages(store: Store, query: DeliveryQuery, size: int) -> Iterator[DeliveryQuery]:
    """Yield the selected deliveries in pages, each delivery once.

    Args:
        store: Where they are.
        query: Which.
        size: How many make a page.

    Returns:
        A query with the ids of each page.
    """
    if query.ids is not None:
        for start in range(0, len(query.ids), size):
            yield attrs.evolve(query, ids=query.ids[start : start + size])
        return
    after: str | None = None
    while page := store.deliveries(query, after=after, limit=size):
        yield attrs.evolve(query, ids=tuple(delivery.id for delivery in page))
        if len(page) < size:
            return
        after = page[-1].id


def replay_deliveries(
    store: Store,
    query: DeliveryQuery,
    *,
    now: datetime,
    size: int,
    tell: Tell,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Make finished deliveries pending again.

    Args:
        store: Where they are.
        query: Selects the deliveries; without states and ids, all `failed` and `cancelled` ones.
        now: When they are due.
        size: How many make a page.
        tell: Notifies the dispatcher after each page.
        progress: Called after each page with the number so far.

    Returns:
        The number of deliveries that are pending again.

    Raises:
        ConfigurationError: There is no criterion.
    """
    if query == DeliveryQuery():
        raise ConfigurationError(
            "replay needs a filter: pass a delivery_id, subscription_id, event or since"
        )
    if query.states is None and query.ids is None:
        query = attrs.evolve(query, states=UNDELIVERED)
    count = 0
    for page in pages(store, query if query.ids is not None else query.only_finished(), size):
        replayed = store.replay(page, now=now, limit=size)
        count += len(replayed)
        tell.of(replayed)
        if progress is not None:
            progress(count)
    return count


@attrs.frozen(kw_only=True)
class Missing:
    """Creates the deliveries of a subscription that are missing for earlier messages.

    Attributes:
        store: Where messages are.
        subscription: The subscription.
        query: Selects messages: `since`, optionally `until` and `event`.
        accepts: False leaves the subscription out of a message.
        now: When the deliveries are due.
        size: How many messages make a page.
        tell: Notifies the dispatcher after each page.
    """

    store: Store
    subscription: Subscription
    query: DeliveryQuery
    accepts: Callable[[Message, Subscription], bool]
    now: datetime
    size: int
    tell: Tell

    def deliver(self, after: str | None) -> tuple[int, str | None]:
        """Create the missing deliveries of a page of messages.

        Args:
            after: The start of the page, as returned for the previous page.

        Returns:
            The number of deliveries, and the start of the next page, or None at the end.
        """
        assert self.query.since is not None
        found, further = self.store.missing(
            self.subscription,
            since=self.query.since,
            until=self.query.until,
            after=after,
            limit=self.size,
        )
        event = self.query.event
        made = [
            make_delivery(message, self.subscription, self.now)
            for message in found
            if (event is None or matches(event, message.event))
            and self.accepts(message, self.subscription)
        ]
        by_id = {message.id: message for message in found}
        if made:
            self.store.route(
                [
                    Routing(message=by_id[each.message_id], deliveries=[each], complete=False)
                    for each in made
                ]
            )
            self.tell.of(made)
        return len(made), further


def deliver_missing(
    store: Store,
    query: DeliveryQuery,
    *,
    accepts: Callable[[Message, Subscription], bool],
    now: datetime,
    size: int,
    tell: Tell,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Create the missing deliveries of a subscription, page by page.

    Args:
        store: Where messages are.
        query: `subscription_id` and `since`, optionally `until` and `event`.
        accepts: False leaves the subscription out of a message.
        now: When the deliveries are due.
        size: How many messages make a page.
        tell: Notifies the dispatcher after each page.
        progress: Called after each page with the number so far.

    Returns:
        The number of deliveries.

    Raises:
        ConfigurationError: `subscription_id` or `since` is missing, or there are other criteria.
        NotFoundError: The subscription doesn't exist.
    """
    given = query.subscription_id is not None and query.since is not None
    if not given or query.ids is not None or query.message_id is not None:
        raise ConfigurationError(
            "missing=True needs subscription_id and since, and permits only until and event"
        )
    assert query.subscription_id is not None
    subscription = store.subscription(query.subscription_id)
    if subscription is None:
        raise NotFoundError(f"there is no subscription {query.subscription_id!r}")
    missing = Missing(
        store=store,
        subscription=subscription,
        query=query,
        accepts=accepts,
        now=now,
        size=size,
        tell=tell,
    )
    count, after = missing.deliver(None)
    while after is not None:
        if progress is not None:
            progress(count)
        more, after = missing.deliver(after)
        count += more
    if progress is not None:
        progress(count)
    return count
