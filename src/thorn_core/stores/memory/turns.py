"""Deliveries that wait, by subscription; subscriptions take turns."""

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
    """What waits for one recipient."""

    waiting: TimeQueue[DeliveryRecord] = attrs.field(factory=lambda: TimeQueue(is_pending))
    paused_until: datetime | None = None
    in_turn: bool = False


class Turns:
    """Deliveries that wait: nothing here costs more because more of them do.

    A recipient is a subscription's id.

    Args:
        held: Whether a recipient is paused until somebody resumes it; `wake` says that it was.
    """

    def __init__(self, held: Callable[[str], bool]) -> None:
        self._held = held
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        self._later: list[tuple[datetime, str]] = []

    def add(self, delivery: DeliveryRecord) -> None:
        """Let a pending delivery wait until it is due."""
        recipient = delivery.made.subscription_id
        line = self._lines.get(recipient)
        if line is None:
            line = self._lines[recipient] = _Line()
        line.waiting.push(delivery.due_at, delivery.serial, delivery)
        first = line.waiting.first()
        if not line.in_turn and first is not None and first[1] is delivery:
            heapq.heappush(self._later, (delivery.due_at, recipient))

    def pause(self, recipient: str, until: datetime) -> None:
        """Leave a recipient alone until then, or longer if it is paused for longer already."""
        line = self._lines.setdefault(recipient, _Line())
        line.paused_until = max(line.paused_until or until, until)
        if not line.in_turn:
            # So that the line is looked at, and forgotten, when the pause is over.
            heapq.heappush(self._later, (line.paused_until, recipient))

    def paused(self, recipient: str, now: datetime) -> bool:
        """Whether a recipient is to be left alone."""
        if self._held(recipient):
            return True
        line = self._lines.get(recipient)
        return line is not None and line.paused_until is not None and line.paused_until > now

    def wake(self, recipient: str, now: datetime) -> None:
        """Look at a recipient that is held no longer."""
        line = self._lines.get(recipient)
        if line is not None and not line.in_turn:
            heapq.heappush(self._later, (now, recipient))

    def lift(self, recipient: str, now: datetime) -> None:
        """Forget that a recipient is to be left alone for a time."""
        line = self._lines.get(recipient)
        if line is not None:
            line.paused_until = None
            self.wake(recipient, now)

    def call_up(self, now: datetime) -> None:
        """Let the recipients whose time has come take turns."""
        while self._later and self._later[0][0] <= now:
            recipient = heapq.heappop(self._later)[1]
            line = self._lines.get(recipient)
            if line is not None and not line.in_turn:
                line.in_turn = True
                self._turns.append(recipient)

    def take(
        self, now: datetime, *, limit: int, per_recipient: int, busy: Mapping[str, int]
    ) -> Iterator[DeliveryRecord]:
        """Take out deliveries that are due, one of each recipient in turn.

        The caller leases each before it asks for the next.
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
        """When a recipient that waits for its time is next to be looked at."""
        return self._later[0][0] if self._later else None
