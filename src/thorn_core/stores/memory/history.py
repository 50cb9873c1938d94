"""The history of the memory store: messages, deliveries and attempts, found by any criterion."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter
from typing import overload

from thorn_core.keys import delivery_id, first_key, message_id, time_of
from thorn_core.latencies import BUSIEST, STEPS, percentiles
from thorn_core.patterns import matches
from thorn_core.periods import Periods
from thorn_core.queries import DeliveryQuery
from thorn_core.stores import rules
from thorn_core.stores.memory.records import PENDING, DeliveryRecord, MessageRecord
from thorn_core.values import Attempt, DeliveryState, Message, Period, Stats, Subscription


class History:
    """Messages and deliveries in any state; the number of finished ones is bounded.

    The store holds the lock, not this class.

    Args:
        limit: The maximum number of finished deliveries, of messages without deliveries, and of
            attempts in the statistics.

    Attributes:
        messages: Messages by id.
        deliveries: Deliveries by id.
    """

    def __init__(self, limit: int) -> None:
        self.messages: dict[str, MessageRecord] = {}
        self.deliveries: dict[str, DeliveryRecord] = {}
        self._limit = limit
        self._by_subscription: dict[str, dict[str, None]] = {}
        self._by_sender: dict[str, dict[str, None]] = {}
        self._unrouted = 0
        self._keyed: dict[bytes, str] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._unreached: OrderedDict[str, None] = OrderedDict()
        self._attempted: deque[tuple[datetime, str, float | None, bool]] = deque(maxlen=limit)

    # -- changes

    def earlier(self, message: Message) -> str | None:
        """Return the id of an earlier message with the same idempotency key."""
        return None if message.idempotency is None else self._keyed.get(message.idempotency)

    def take_in(self, kept: MessageRecord) -> None:
        """Store a new message."""
        message = kept.message
        self.messages[message.id] = kept
        self._unrouted += 1
        if message.idempotency is not None:
            self._keyed[message.idempotency] = message.id
        if message.sender is not None:
            self._by_sender.setdefault(message.sender, {})[message.id] = None

    def add(self, delivery: DeliveryRecord, kept: MessageRecord) -> None:
        """Store a delivery of a stored message."""
        made = delivery.made
        self._unreached.pop(made.message_id, None)
        self.deliveries[made.id] = delivery
        kept.deliveries.append(made.id)
        self._by_subscription.setdefault(made.subscription_id, {})[made.id] = None

    def routed(self, kept: MessageRecord) -> None:
        """Mark a message as routed, perhaps to no subscription."""
        kept.routed = True
        self._unrouted -= 1
        if not kept.deliveries:
            self._unreached[kept.message.id] = None

    def attempted(self, delivery: DeliveryRecord, attempt: Attempt) -> None:
        """Note an attempt for a delivery."""
        delivery.attempts.append(attempt)
        delivery.attempt_count += 1
        latency = None if attempt.status is None else attempt.duration
        self._attempted.append((attempt.at, delivery.made.subscription_id, latency, attempt.ok))

    def finished(self, delivery: DeliveryRecord) -> None:
        """Mark a delivery as finished."""
        self._finished[delivery.made.id] = None

    def reopened(self, delivery: DeliveryRecord) -> None:
        """Reopen a finished delivery for a replay."""
        del self._finished[delivery.made.id]

    def trim(self) -> None:
        """Delete the oldest finished deliveries and unreached messages beyond the limit."""
        while len(self._finished) > self._limit:
            self._drop(next(iter(self._finished)))
        while len(self._unreached) > self._limit:
            self._forget(self._unreached.popitem(last=False)[0])

    def purge(self, query: DeliveryQuery, limit: int) -> int:
        """Delete finished deliveries, and messages without deliveries."""
        found = self.found(query.only_finished(), limit)
        for delivery in found:
            self._drop(delivery.made.id)
        if len(found) < limit and query == DeliveryQuery(until=query.until):
            until = None if query.until is None else _first_id(query.until)
            for key in list(self._unreached):
                if until is None or key < until:
                    del self._unreached[key]
                    self._forget(key)
        return len(found)

    def erase(self, sender: str, limit: int) -> int:
        """Delete a sender's messages with their deliveries, in any state."""
        ids = list(islice(self._by_sender.get(sender, ()), limit))
        for key in ids:
            kept = self.messages[key]
            for delivery in list(kept.deliveries):
                # The queues skip cancelled deliveries.
                self.deliveries[delivery].state = DeliveryState.CANCELLED
                self._drop(delivery)
            self._unreached.pop(key, None)
            if key in self.messages:
                self._forget(key)
            kept.routed = True
        return len(ids)

    def _drop(self, key: str) -> None:
        self._finished.pop(key, None)
        made = self.deliveries.pop(key).made
        siblings = self._by_subscription[made.subscription_id]
        del siblings[key]
        if not siblings:
            del self._by_subscription[made.subscription_id]
        kept = self.messages[made.message_id]
        kept.deliveries.remove(key)
        if not kept.deliveries and kept.routed:
            self._forget(made.message_id)

    def _forget(self, key: str) -> None:
        kept = self.messages.pop(key)
        self._unrouted -= not kept.routed
        message = kept.message
        if message.idempotency is not None:
            self._keyed.pop(message.idempotency, None)
        if message.sender is not None:
            others = self._by_sender[message.sender]
            del others[key]
            if not others:
                del self._by_sender[message.sender]

    # -- queries

    @property
    def waiting(self) -> int:
        """Count messages that are not routed and deliveries that are not finished."""
        return self._unrouted + len(self.deliveries) - len(self._finished)

    def found(
        self,
        query: DeliveryQuery,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Sequence[DeliveryRecord]:
        """Return a page of deliveries, ordered by id."""
        meeting = self._meeting(query)
        if newest_first:
            older = (d for d in meeting if after is None or d.made.id < after)
            return heapq.nlargest(limit, older, key=attrgetter("made.id"))
        newer = (d for d in meeting if after is None or d.made.id > after)
        return heapq.nsmallest(limit, newer, key=attrgetter("made.id"))

    def count(self, query: DeliveryQuery) -> int:
        """Count deliveries."""
        return sum(1 for _ in self._meeting(query))

    def _meeting(self, query: DeliveryQuery) -> Iterator[DeliveryRecord]:
        since, until = _first_id(query.since), _first_id(query.until)
        for key in self._candidates(query):
            delivery = self.deliveries[key]
            made = delivery.made
            if (
                (query.states is None or delivery.state in query.states)
                and query.message_id in (None, made.message_id)
                and query.subscription_id in (None, made.subscription_id)
                and (query.event is None or matches(query.event, made.event))
                and (since is None or made.message_id >= since)
                and (until is None or made.message_id < until)
            ):
                yield delivery

    def _candidates(self, query: DeliveryQuery) -> Iterable[str]:
        """Return a superset of the ids that a query selects."""
        if query.ids is not None:
            return [key for key in dict.fromkeys(query.ids) if key in self.deliveries]
        if query.message_id is not None:
            kept = self.messages.get(query.message_id)
            return [] if kept is None else kept.deliveries
        if query.subscription_id is not None:
            return self._by_subscription.get(query.subscription_id, {})
        return self.deliveries

    def attempts(
        self, delivery_ids: Sequence[str], after: str | None, limit: int
    ) -> Sequence[Attempt]:
        """Return a page of the attempts of these deliveries."""
        found = [
            attempt
            for key in dict.fromkeys(delivery_ids)
            if key in self.deliveries
            for attempt in self.deliveries[key].attempts
        ]
        found.sort(key=lambda attempt: attempt.id)
        start = 0 if after is None else bisect_right(found, after, key=lambda a: a.id)
        return found[start : start + limit]

    def missing(
        self,
        subscription: Subscription,
        since: datetime,
        until: datetime | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[Message], str | None]:
        """Return matching routed messages without a delivery to the subscription."""
        first, end = _first_id(since), _first_id(until)
        ids = (
            key
            for key in self.messages
            if key >= first and (end is None or key < end) and (after is None or key > after)
        )
        page = heapq.nsmallest(limit, ids)
        found = [
            kept.message
            for kept in map(self.messages.__getitem__, page)
            if kept.routed
            and rules.is_for(kept.message, subscription)
            and delivery_id(kept.message.id, subscription.id) not in self.deliveries
        ]
        return found, page[-1] if page and len(page) == limit else None

    def stats(
        self, now: datetime, window: timedelta, subscriptions: int, held: Callable[[str], bool]
    ) -> Stats:
        """Return counts of the contents, and statistics of recent attempts.

        Args:
            now: The current time.
            window: The time span of the attempts' statistics.
            subscriptions: The number of subscriptions.
            held: Tells whether a subscription is paused.
        """
        states = dict.fromkeys(DeliveryState, 0)
        due = []
        for delivery in self.deliveries.values():
            states[delivery.state] += 1
            waits = delivery.state is PENDING and delivery.due_at <= now
            if waits and not held(delivery.made.subscription_id):
                due.append(delivery.due_at)
        recent = [entry for entry in self._attempted if now - window <= entry[0] <= now]
        unrouted = [kept.message.at for kept in self.messages.values() if not kept.routed]
        by_recipient: dict[str, list[float]] = {}
        for _, recipient, latency, _ in recent:
            if latency is not None:
                by_recipient.setdefault(recipient, []).append(latency)
        busiest = sorted(by_recipient.items(), key=lambda item: -len(item[1]))[:BUSIEST]
        return Stats(
            subscriptions=subscriptions,
            messages=len(self.messages),
            unrouted=len(unrouted),
            deliveries=states,
            due_since=min([*due, *unrouted], default=None),
            attempts=len(recent),
            failed_attempts=sum(not ok for *_, ok in recent),
            window=window,
            latency=percentiles(Counter(x for some in by_recipient.values() for x in some)),
            recipients={recipient: percentiles(Counter(some)) for recipient, some in busiest},
        )

    def periods(self, asked: Periods) -> Sequence[Period]:
        """Return the results of deliveries to one subscription, per period."""
        states: Counter[tuple[int, str]] = Counter()
        steps: Counter[tuple[int, float]] = Counter()
        since = time_of(first_key(asked.since))
        query = DeliveryQuery(
            subscription_id=asked.subscription_id, since=asked.since, until=asked.until
        )
        for delivery in self.found(query, asked.limit, newest_first=True):
            at = time_of(bytes.fromhex(delivery.made.message_id.removeprefix("msg_")))
            states[(at - since) // asked.step, delivery.state] += 1
            for attempt in delivery.attempts:
                n = (attempt.at - asked.since) // asked.step
                if attempt.status is not None:
                    steps[n, round(attempt.duration * STEPS)] += 1
        return asked.made(
            ((n, state, many) for (n, state), many in states.items()),
            ((n, tenths, many) for (n, tenths), many in steps.items()),
        )


@overload
def _first_id(at: datetime) -> str: ...
@overload
def _first_id(at: None) -> None: ...
@overload
def _first_id(at: datetime | None) -> str | None: ...


def _first_id(at: datetime | None) -> str | None:
    """Return the lowest possible id of a message at a time."""
    return None if at is None else message_id(first_key(at))
