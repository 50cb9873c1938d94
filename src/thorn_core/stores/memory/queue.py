"""The queue of the memory store: deliveries that are pending or in flight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from thorn_core.ports.store import Lease
from thorn_core.stores import rules
from thorn_core.stores.memory.history import History
from thorn_core.stores.memory.records import (
    IN_FLIGHT,
    PENDING,
    DeliveryRecord,
    MessageRecord,
    is_leased,
)
from thorn_core.stores.memory.time_queue import TimeQueue
from thorn_core.stores.memory.turns import Turns
from thorn_core.values import Claim, Completion, Delivery, DeliveryState, Routing


class Queue:
    """Deliveries by subscription and time, and their leases. The store holds the lock.

    Args:
        history: Stores the deliveries.
        serials: Numbers that order entries with equal times.
        held: Tells whether a subscription is paused.

    Attributes:
        turns: Decides which subscription is next.
    """

    def __init__(
        self, history: History, serials: Iterator[int], held: Callable[[str], bool]
    ) -> None:
        self._history = history
        self._serials = serials
        self._leases = TimeQueue(is_leased)
        self.turns = Turns(held)

    def add(self, kept: MessageRecord, routing: Routing, leased: Lease | None = None) -> None:
        """Store new deliveries of a message, with a lease in flight."""
        for made in routing.deliveries:
            if made.id not in self._history.deliveries:
                delivery = DeliveryRecord(made, next(self._serials), made.state, made.due_at)
                self._history.add(delivery, kept)
                if made.state.finished:
                    delivery.finished_at, delivery.reason = made.finished_at, made.reason
                    self._history.finished(delivery)
                elif leased is not None:
                    delivery.state, delivery.token = IN_FLIGHT, leased[0]
                    self._lease(delivery, leased[1])
                else:
                    self.turns.add(delivery)

    def claim(
        self,
        now: datetime,
        until: datetime,
        token: str,
        limit: int,
        per_recipient: int,
        busy: Mapping[str, int],
        message_ids: Collection[str] | None,
    ) -> Iterator[DeliveryRecord]:
        """Lease due deliveries; subscriptions take turns."""
        self._take_back(now)
        self.turns.call_up(now)
        if message_ids is None:
            due = self.turns.take(now, limit=limit, per_recipient=per_recipient, busy=busy)
        else:
            due = islice(self._due(message_ids, now, per_recipient, busy), limit)
        for delivery in due:
            delivery.state = IN_FLIGHT
            delivery.token = token
            self._lease(delivery, until)
            yield delivery

    def _take_back(self, now: datetime) -> None:
        """Make deliveries with expired leases pending again."""
        while (first := self._leases.first()) and first[0] <= now:
            delivery = first[1]
            self._leases.pop()
            self._unlease(delivery, PENDING)
            self.turns.add(delivery)

    def _due(
        self,
        message_ids: Iterable[str],
        now: datetime,
        per_recipient: int,
        busy: Mapping[str, int],
    ) -> Iterator[DeliveryRecord]:
        """Return the due deliveries of these messages."""
        taken: dict[str, int] = {}
        for message_id in message_ids:
            kept = self._history.messages.get(message_id)
            for key in kept.deliveries if kept is not None else ():
                delivery = self._history.deliveries[key]
                recipient = delivery.made.subscription_id
                if (
                    delivery.state is PENDING
                    and delivery.due_at <= now
                    and not self.turns.paused(recipient, now)
                    and taken.get(recipient, 0) + busy.get(recipient, 0) < per_recipient
                ):
                    taken[recipient] = taken.get(recipient, 0) + 1
                    yield delivery

    def _lease(self, delivery: DeliveryRecord, until: datetime) -> None:
        delivery.leased_until = until
        self._leases.push(until, delivery.serial, delivery)

    @staticmethod
    def _unlease(delivery: DeliveryRecord, state: DeliveryState) -> None:
        delivery.state = state
        delivery.token = delivery.leased_until = None

    def _held(self, claim: Claim) -> DeliveryRecord | None:
        delivery = self._history.deliveries.get(claim.delivery.id)
        if delivery is None or delivery.state is not IN_FLIGHT or delivery.token != claim.token:
            return None
        return delivery

    def renew(self, claims: Sequence[Claim], until: datetime) -> None:
        """Extend the leases until the given time."""
        for claim in claims:
            delivery = self._held(claim)
            if delivery is not None:
                self._lease(delivery, until)

    def release(self, claims: Sequence[Claim]) -> None:
        """Release leases without an attempt."""
        for claim in claims:
            delivery = self._held(claim)
            if delivery is not None:
                self._unlease(delivery, PENDING)
                self.turns.add(delivery)

    def record(self, completions: Sequence[Completion]) -> list[Completion]:
        """Record the completions of claims; return those whose lease was still valid."""
        held = []
        for completion in completions:
            delivery = self._history.deliveries.get(completion.claim.delivery.id)
            if delivery is None:
                continue
            mine = self._held(completion.claim) is not None or (
                completion.outcome.state is DeliveryState.DELIVERED and not delivery.state.finished
            )
            if completion.attempt is not None:
                self._history.attempted(delivery, completion.attempt)
            if mine:
                self._apply(delivery, completion)
                held.append(completion)
        for recipient, until in rules.pauses(held):
            self.turns.pause(recipient, until)
        return held

    def _apply(self, delivery: DeliveryRecord, completion: Completion) -> None:
        outcome = completion.outcome
        if outcome.state is PENDING:
            self._unlease(delivery, PENDING)
            delivery.reason = outcome.reason
            delivery.due_at = outcome.due_at or completion.at
            self.turns.add(delivery)
        else:
            self._end(delivery, outcome.state, outcome.reason, completion.at)

    def _end(
        self, delivery: DeliveryRecord, state: DeliveryState, reason: str | None, at: datetime
    ) -> None:
        self._unlease(delivery, state)
        delivery.reason, delivery.finished_at = reason, at
        self._history.finished(delivery)

    def cancel(
        self, deliveries: Sequence[DeliveryRecord], reason: str, now: datetime
    ) -> list[Delivery]:
        """Cancel pending deliveries."""
        for delivery in deliveries:
            self._end(delivery, DeliveryState.CANCELLED, reason, now)
        return [delivery.value() for delivery in deliveries]

    def replay(self, deliveries: Sequence[DeliveryRecord], now: datetime) -> None:
        """Make finished deliveries pending again."""
        for delivery in deliveries:
            self._unlease(delivery, PENDING)
            delivery.attempts_before = delivery.attempt_count
            delivery.due_at = now
            delivery.finished_at = delivery.reason = None
            self._history.reopened(delivery)
            self.turns.add(delivery)

    def next_time(self) -> datetime | None:
        """Return the time of the next expired lease or due subscription."""
        first = self._leases.first()
        times = (None if first is None else first[0], self.turns.next_time())
        return min((time for time in times if time is not None), default=None)
