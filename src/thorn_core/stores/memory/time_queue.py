"""A priority queue by time that skips outdated entries."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

# Don't sweep queues shorter than this.
LEAST = 64


class TimeQueue(Generic[T]):
    """Items by time and serial number, the earliest first.

    The queue never removes entries from the middle. It skips an outdated entry at the front, and
    sweeps outdated entries out when they may outnumber the valid ones. So its size stays
    proportional to the valid entries, at a constant average cost.

    Args:
        holds: Tells whether an item still waits for this time.
    """

    __slots__ = ("_entries", "_holds", "_limit")

    def __init__(self, holds: Callable[[T, datetime], bool]) -> None:
        self._holds = holds
        self._entries: list[tuple[datetime, int, T]] = []
        self._limit = LEAST

    def push(self, time: datetime, serial: int, item: T) -> None:
        """Add an item; its own serial number orders items with equal times."""
        entries = self._entries
        heapq.heappush(entries, (time, serial, item))
        if len(entries) > self._limit:
            # A dict, because an item may be in the queue twice for the same time.
            kept = {e[:2]: e for e in entries if self._holds(e[2], e[0])}
            self._entries = list(kept.values())
            heapq.heapify(self._entries)
            self._limit = max(LEAST, 2 * len(self._entries))

    def first(self) -> tuple[datetime, T] | None:
        """Return the earliest item and its time, or None if the queue is empty."""
        entries = self._entries
        while entries:
            time, _, item = entries[0]
            if self._holds(item, time):
                return time, item
            heapq.heappop(entries)
        return None

    def pop(self) -> None:
        """Remove the first item."""
        heapq.heappop(self._entries)
