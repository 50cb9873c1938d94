"""What the memory store keeps: messages, deliveries, attempts, found by any criterion."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from thorn_core.patterns import matches
from thorn_core.stores.base import DeliveryQuery
from thorn_core.stores.latencies import BUSIEST, STEPS, percentiles
from thorn_core.stores.periods import Periods
from thorn_core.stores.records import PENDING, DeliveryRecord, MessageRecord
from thorn_core.values import Attempt, DeliveryState, Period, Stats


class History:
    """Messages and deliveries in whatever state; what is over is bounded.

    Nothing here locks: the store does.

    Args:
        limit: How many settled deliveries to keep, how many messages that reached nobody, and how
            many attempts to count.

    Attributes:
        messages: By id.
        deliveries: By id.
    """

    def __init__(self, limit: int) -> None:
        self.messages: dict[str, MessageRecord] = {}
        self.deliveries: dict[str, DeliveryRecord] = {}
        self._limit = limit
        self._by_subscription: dict[str, dict[str, None]] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._unreached: OrderedDict[str, None] = OrderedDict()
        self._attempted: deque[tuple[datetime, str, float | None, bool]] = deque(maxlen=limit)

    # -- what happens

    def add(self, delivery: DeliveryRecord, kept: MessageRecord) -> None:
        """Keep a delivery of a message that is here."""
        made = delivery.made
        self.deliveries[made.id] = delivery
        kept.deliveries.append(made.id)
        self._by_subscription.setdefault(made.subscription_id, {})[made.id] = None

    def reached_nobody(self, kept: MessageRecord) -> None:
        """A message has been routed, and to no subscription."""
        self._unreached[kept.message.id] = None

    def attempted(self, delivery: DeliveryRecord, attempt: Attempt) -> None:
        """An attempt was made for a delivery."""
        delivery.attempts.append(attempt)
        delivery.attempt_count += 1
        latency = None if attempt.status is None else attempt.duration
        self._attempted.append((attempt.at, delivery.made.recipient, latency, attempt.ok))

    def settled(self, delivery: DeliveryRecord) -> None:
        """A delivery has come to its end."""
        self._settled[delivery.made.id] = None

    def reopened(self, delivery: DeliveryRecord) -> None:
        """A settled delivery is to be made again."""
        del self._settled[delivery.made.id]

    def trim(self) -> None:
        """Let the oldest of what is over go, down to the bound."""
        while len(self._settled) > self._limit:
            self._drop(next(iter(self._settled)))
        while len(self._unreached) > self._limit:
            del self.messages[self._unreached.popitem(last=False)[0]]

    def purge(self, query: DeliveryQuery, limit: int) -> int:
        """Let settled deliveries go, and messages left without any."""
        found = self.found(query.only_settled(), limit)
        for delivery in found:
            self._drop(delivery.made.id)
        if len(found) < limit and query == DeliveryQuery(until=query.until):
            for key in list(self._unreached):
                if query.until is None or self.messages[key].message.at < query.until:
                    del self._unreached[key], self.messages[key]
        return len(found)

    def _drop(self, delivery_id: str) -> None:
        del self._settled[delivery_id]
        made = self.deliveries.pop(delivery_id).made
        siblings = self._by_subscription[made.subscription_id]
        del siblings[delivery_id]
        if not siblings:
            del self._by_subscription[made.subscription_id]
        kept = self.messages[made.message_id]
        kept.deliveries.remove(delivery_id)
        if not kept.deliveries and kept.routed:
            del self.messages[made.message_id]

    # -- what there is

    def found(
        self,
        query: DeliveryQuery,
        limit: int,
        *,
        after: tuple[datetime, str] | None = None,
        newest_first: bool = False,
    ) -> Sequence[DeliveryRecord]:
        """A page of deliveries, by age."""
        meeting = (
            delivery
            for key in self._candidates(query)
            if _meets(delivery := self.deliveries[key], query)
        )
        if newest_first:
            older = (d for d in meeting if after is None or d.made.place < after)
            return heapq.nlargest(limit, older, key=_place)
        newer = (d for d in meeting if after is None or d.made.place > after)
        return heapq.nsmallest(limit, newer, key=_place)

    def count(self, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        return sum(_meets(self.deliveries[key], query) for key in self._candidates(query))

    def _candidates(self, query: DeliveryQuery) -> Iterable[str]:
        """The ids among which are those that a query asks for."""
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
        """A page of the attempts of these deliveries."""
        found = [
            attempt
            for key in dict.fromkeys(delivery_ids)
            if key in self.deliveries
            for attempt in self.deliveries[key].attempts
        ]
        found.sort(key=lambda attempt: attempt.id)
        start = 0 if after is None else bisect_right(found, after, key=lambda a: a.id)
        return found[start : start + limit]

    def stats(self, now: datetime, window: timedelta, subscriptions: int) -> Stats:
        """What there is, so many subscriptions with it, and how attempts went before now."""
        states = dict.fromkeys(DeliveryState, 0)
        due = []
        for delivery in self.deliveries.values():
            states[delivery.state] += 1
            if delivery.state is PENDING and delivery.due_at <= now:
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
            failed=sum(not ok for *_, ok in recent),
            window=window,
            latency=percentiles(Counter(x for some in by_recipient.values() for x in some)),
            recipients={recipient: percentiles(Counter(some)) for recipient, some in busiest},
        )

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period."""
        states: Counter[tuple[int, str]] = Counter()
        steps: Counter[tuple[int, float]] = Counter()
        query = DeliveryQuery(
            subscription_id=asked.subscription_id, since=asked.since, until=asked.until
        )
        for delivery in self.found(query, asked.limit, newest_first=True):
            states[(delivery.made.created_at - asked.since) // asked.step, delivery.state] += 1
            for attempt in delivery.attempts:
                n = (attempt.at - asked.since) // asked.step
                if attempt.status is not None:
                    steps[n, round(attempt.duration * STEPS)] += 1
        return asked.made(
            ((n, state, many) for (n, state), many in states.items()),
            ((n, tenths, many) for (n, tenths), many in steps.items()),
        )


def _place(delivery: DeliveryRecord) -> tuple[datetime, str]:
    return delivery.made.place


def _meets(delivery: DeliveryRecord, query: DeliveryQuery) -> bool:
    made = delivery.made
    return (
        (query.states is None or delivery.state in query.states)
        and (query.message_id is None or made.message_id == query.message_id)
        and (query.subscription_id is None or made.subscription_id == query.subscription_id)
        and (query.event is None or matches(query.event, made.event))
        and (query.since is None or made.created_at >= query.since)
        and (query.until is None or made.created_at < query.until)
    )
