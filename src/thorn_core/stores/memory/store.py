"""The memory store: each call holds the lock while the store's parts do the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count

import attrs

from thorn_core.errors import StoreError
from thorn_core.periods import Periods
from thorn_core.ports.store import Change, Lease, Written
from thorn_core.ports.unit_of_work import UnitOfWork
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.memory.history import History
from thorn_core.stores.memory.outbox import Outbox
from thorn_core.stores.memory.queue import Queue
from thorn_core.stores.memory.records import PENDING, DeliveryRecord
from thorn_core.stores.memory.subscriptions import Subscriptions
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    Delivery,
    Message,
    Period,
    Routing,
    Stats,
    Subscription,
)


class MemoryStore:
    """Keeps all data in this process: for a single process, tests and experiments.

    Pending deliveries are lost when the process ends. A forked child keeps the subscriptions and
    starts without the messages, which stay with its parent.

    Args:
        history: The maximum number of finished deliveries; beyond it, the store deletes the oldest
            with their messages.
        backlog: The maximum number of waiting messages and deliveries; beyond it, `publish` raises
            StoreError.
    """

    blocking = False
    shared = False

    def __init__(self, *, history: int = 10_000, backlog: int = 1_000_000) -> None:
        self._limit = history
        self._backlog = backlog
        self._subscriptions = Subscriptions()
        self._wakers: list[Callable[[], None]] = []
        self._begin()

    def __repr__(self) -> str:
        return "<MemoryStore>"

    def _begin(self) -> None:
        self._lock = threading.Lock()
        serials = count()
        self._history = History(self._limit)
        self._outbox = Outbox(self._history, serials)
        self._queue = Queue(self._history, serials, self._subscriptions.is_paused)

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Store a new subscription."""
        with self._lock:
            self._subscriptions.add(subscription)

    def change_subscription(self, subscription_id: str, change: Change) -> Subscription:
        """Change a subscription."""
        with self._lock:
            before, after = self._subscriptions.change(subscription_id, change)
            if before.url != after.url:
                self._queue.turns.lift(subscription_id, after.updated_at)
        self._wake()
        return after

    def remove_subscription(self, subscription_id: str, *, now: datetime) -> bool:
        """Remove a subscription."""
        with self._lock:
            removed = self._subscriptions.remove(subscription_id)
            self._queue.turns.wake(subscription_id, now)
        self._wake()
        return removed

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        return self._subscriptions.get(subscription_id)

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """Return a page of all subscriptions, or of one owner's."""
        with self._lock:
            return self._subscriptions.page(owner, after, limit)

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """Return a page of the enabled subscriptions that match an event."""
        with self._lock:
            return self._subscriptions.matching(event, sender, after, limit)

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """Return the first page of `matching` for one or more of the first messages."""
        pages: list[Sequence[Subscription]] = []
        room = limit
        for message in messages:
            page = self.matching(message.event, sender=message.sender, after=None, limit=limit)
            room -= len(page)
            if pages and room < 0:
                break
            pages.append(page)
        return pages

    def pause(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Pause a subscription: hold its deliveries."""
        with self._lock:
            return self._subscriptions.set_paused(subscription_id, paused=True, now=now)

    def resume(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Resume a subscription: release its held deliveries."""
        with self._lock:
            resumed = self._subscriptions.set_paused(subscription_id, paused=False, now=now)
            self._queue.turns.wake(subscription_id, now)
        self._wake()
        return resumed

    # -- outbox

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Store messages for routing when the transaction commits.

        Raises:
            StoreError: The backlog is full.
        """
        waiting = self._history.waiting
        if waiting + len(messages) > self._backlog:
            raise StoreError(
                f"{waiting} messages and deliveries wait in memory, and the limit is"
                f" {self._backlog}; run a worker, or use a database store"
            )
        within.on_commit(partial(self._keep, messages, written))

    def _keep(self, messages: Sequence[Message], written: Written | None) -> None:
        with self._lock:
            present = self._outbox.publish(messages)
        if written is not None:
            written(present)
        self._wake()

    def claim_messages(
        self,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str | None = None,
        ids: Collection[str] | None = None,
    ) -> Sequence[Message]:
        """Lease messages that are not routed yet."""
        with self._lock:
            return self._outbox.claim(now, now + lease, limit, ids)

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Postpone the routing of leased messages until the given time."""
        with self._lock:
            self._outbox.postpone(message_ids, until)

    def route(self, routings: Sequence[Routing], *, leased: Lease | None = None) -> None:
        """Store the deliveries of messages."""
        with self._lock:
            for routing in routings:
                kept = self._history.messages.get(routing.message.id)
                if kept is not None:
                    self._queue.add(kept, routing, leased)
                    if routing.complete and not kept.routed:
                        self._history.routed(kept)
            self._history.trim()

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        kept = self._history.messages.get(message_id)
        return None if kept is None else kept.message

    def routed(self, message_id: str) -> bool:
        """Return True if the message is routed completely or no longer exists."""
        kept = self._history.messages.get(message_id)
        return kept is None or kept.routed

    # -- queue

    def ready(self, subscription_ids: Collection[str], *, now: datetime) -> Mapping[str, bool]:
        """Return no recipients: claims in memory are as cheap."""
        return {}

    def claim(
        self,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str,
        per_recipient: int,
        busy: Mapping[str, int],
        message_ids: Collection[str] | None = None,
    ) -> Sequence[Claim]:
        """Lease due deliveries; subscriptions take turns."""
        with self._lock:
            leased = self._queue.claim(
                now, now + lease, token, limit, per_recipient, busy, message_ids
            )
            return [
                Claim(
                    delivery=delivery.value(),
                    message=self._history.messages[delivery.made.message_id].message,
                    subscription=delivery.made.target
                    or self._subscriptions.get(delivery.made.subscription_id),
                    token=token,
                )
                for delivery in leased
            ]

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Extend the leases until the given time."""
        with self._lock:
            self._queue.renew(claims, until)

    def release(self, claims: Sequence[Claim]) -> None:
        """Release leases without an attempt."""
        with self._lock:
            self._queue.release(claims)
        self._wake()

    def record(
        self, completions: Sequence[Completion], *, routed: Collection[str] = ()
    ) -> Sequence[Subscription]:
        """Record the completions of claims."""
        with self._lock:
            held = self._queue.record(completions)
            self._history.trim()
            return self._subscriptions.judge(held)

    def cancel(
        self, query: DeliveryQuery, *, now: datetime, limit: int, reason: str
    ) -> Sequence[Delivery]:
        """Cancel pending deliveries."""
        if query.states is not None and PENDING not in query.states:
            return []
        with self._lock:
            found = self._history.found(attrs.evolve(query, states=(PENDING,)), limit)
            cancelled = self._queue.cancel(found, reason, now)
            self._history.trim()
            return cancelled

    def next_due(self, now: datetime) -> datetime | None:
        """Return the earliest time at which more work may become claimable."""
        with self._lock:
            times = (self._queue.next_time(), self._outbox.next_time())
            return min((time for time in times if time is not None), default=None)

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever new work may be claimable."""
        self._wakers = [*self._wakers, wake]

        def forget() -> None:
            self._wakers = [other for other in self._wakers if other is not wake]

        return forget

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    # -- history

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery with this id, or None."""
        delivery = self._history.deliveries.get(delivery_id)
        return None if delivery is None else self._value(delivery)

    def _value(self, delivery: DeliveryRecord) -> Delivery:
        return delivery.value(held=self._subscriptions.is_paused(delivery.made.subscription_id))

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """Return a page of deliveries, ordered by id."""
        with self._lock:
            found = self._history.found(query, limit, after=after, newest_first=newest_first)
            return [self._value(delivery) for delivery in found]

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """Return a page of the attempts of these deliveries."""
        with self._lock:
            return self._history.attempts(delivery_ids, after, limit)

    def count(self, query: DeliveryQuery) -> int:
        """Count deliveries."""
        with self._lock:
            return self._history.count(query)

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make finished deliveries pending again."""
        with self._lock:
            found = self._history.found(query.only_finished(), limit)
            self._queue.replay(found, now)
            replayed = [self._value(delivery) for delivery in found]
        self._wake()
        return replayed

    def missing(
        self,
        subscription: Subscription,
        *,
        since: datetime,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Sequence[Message], str | None]:
        """Return matching routed messages without a delivery to the subscription."""
        with self._lock:
            return self._history.missing(subscription, since, until, after, limit)

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Delete finished deliveries with their attempts, and messages without deliveries."""
        with self._lock:
            return self._history.purge(query, limit)

    def erase(self, sender: str, *, limit: int) -> int:
        """Delete messages of a sender with their deliveries and attempts."""
        with self._lock:
            return self._history.erase(sender, limit)

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """Return counts of the store's contents and statistics of recent attempts."""
        with self._lock:
            number, held = len(self._subscriptions), self._subscriptions.is_paused
            return self._history.stats(now, window, number, held)

    def periods(self, asked: Periods) -> Sequence[Period]:
        """Return the results of deliveries to one subscription, per period."""
        with self._lock:
            return self._history.periods(asked)

    # -- life cycle

    def check(self) -> None:
        """Do nothing: the store is always ready."""

    def before_fork(self) -> None:
        """Do nothing: the store has no resources to close."""

    def after_fork(self) -> None:
        """Forget the messages; the parent process delivers them."""
        self._wakers = []
        self._begin()

    def close(self) -> None:
        """Do nothing: the history stays readable."""
