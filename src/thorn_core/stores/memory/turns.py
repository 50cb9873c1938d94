"""Waiting deliveries by subscription; subscriptions take turns."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import attrs

from thorn_core.stores.memory.records import DeliveryRecord, is_pending
from thorn_core.stores.memory.time_queue import TimeQueue


@attrs.define(eq=False, slots=True)
class _Line:
    """The waiting deliveries of one recipient."""

    waiting: TimeQueue[DeliveryRecord] = attrs.field(factory=lambda: TimeQueue(is_pending))
    paused_until: datetime | None = None
    in_turn: bool = False


class Turns:
    """Waiting deliveries; no operation gets slower with their number.

    A recipient is a subscription's id.

    Args:
        held: Tells whether a recipient is paused without a time limit; call `wake` when it is
            resumed.
    """

    def __init__(self, held: Callable[[str], bool]) -> None:
        self._held = held
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        self._later: list[tuple[datetime, str]] = []

    def add(self, delivery: DeliveryRecord) -> None:
        """Add a pending delivery."""
        recipient = delivery.made.subscription_id
        line = self._lines.get(recipient)
        if line is None:
            line = self._lines[recipient] = _Line()
        line.waiting.push(delivery.due_at, delivery.serial, delivery)
        first = line.waiting.first()
        if not line.in_turn and first is not None and first[1] is delivery:
            heapq.heappush(self._later, (delivery.due_at, recipient))

    def pause(self, recipient: str, until: datetime) -> None:
        """Pause a recipient until the given time, or until the end of a longer pause."""
        line = self._lines.setdefault(recipient, _Line())
        line.paused_until = max(line.paused_until or until, until)
        if not line.in_turn:
            # So that the queue of the recipient is examined, and forgotten, after the pause.
            heapq.heappush(self._later, (line.paused_until, recipient))

    def paused(self, recipient: str, now: datetime) -> bool:
        """Return True if a recipient is paused."""
        if self._held(recipient):
            return True
        line = self._lines.get(recipient)
        return line is not None and line.paused_until is not None and line.paused_until > now

    def wake(self, recipient: str, now: datetime) -> None:
        """Examine a recipient that has been resumed."""
        line = self._lines.get(recipient)
        if line is not None and not line.in_turn:
            heapq.heappush(self._later, (now, recipient))

    def lift(self, recipient: str, now: datetime) -> None:
        """End a recipient's pause of limited time."""
        line = self._lines.get(recipient)
        if line is not None:
            line.paused_until = None
            self.wake(recipient, now)

    def call_up(self, now: datetime) -> None:
        """Let the recipients with due deliveries take turns."""
        while self._later and self._later[0][0] <= now:
            recipient = heapq.heappop(self._later)[1]
            line = self._lines.get(recipient)
            if line is not None and not line.in_turn:
                line.in_turn = True
                self._turns.append(recipient)

    def take(
        self, now: datetime, *, limit: int, per_recipient: int, busy: Mapping[str, int]
    ) -> Iterator[DeliveryRecord]:
        """Yield due deliveries, one of each recipient in turn, and remove them.

        The caller leases each delivery before it requests the next.
        """
        taken: dict[str, int] = {}
        full: list[str] = []
        while self._turns and limit > 0:
            recipient = self._turns.popleft()
            line = self._lines[recipient]
            first = line.waiting.first()
            ready = now if first is None else first[0]
            if line.paused_until is not None:
                ready = max(ready, line.paused_until)
            if self._held(recipient):
                line.in_turn = False
            elif ready > now:
                line.in_turn = False
                heapq.heappush(self._later, (ready, recipient))
            elif first is None:
                del self._lines[recipient]
            elif taken.get(recipient, 0) + busy.get(recipient, 0) >= per_recipient:
                full.append(recipient)
            else:
                line.waiting.pop()
                taken[recipient] = taken.get(recipient, 0) + 1
                self._turns.append(recipient)
                limit -= 1
                yield first[1]
        self._turns.extend(full)

    def next_time(self) -> datetime | None:
        """Return the time at which the next waiting recipient is due."""
        return self._later[0][0] if self._later else None
