"""A priority queue by time whose entries may cease to hold while they wait."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

# Below this length it isn't worth looking for entries that no longer hold.
LEAST = 64


class TimeQueue(Generic[T]):
    """Items by time and serial number, the earliest first.

    Nothing is ever taken out of the middle: an entry that no longer holds is skipped when it comes
    to the front, and swept out when such entries may outnumber the others. So the queue stays as
    small as what it holds, at a constant cost on average.

    Args:
        holds: Whether an item still waits for this time.
    """

    __slots__ = ("_entries", "_holds", "_limit")

    def __init__(self, holds: Callable[[T, datetime], bool]) -> None:
        self._holds = holds
        self._entries: list[tuple[datetime, int, T]] = []
        self._limit = LEAST

    def push(self, time: datetime, serial: int, item: T) -> None:
        """Let an item wait; the serial decides between equal times, and is the item's own."""
        entries = self._entries
        heapq.heappush(entries, (time, serial, item))
        if len(entries) > self._limit:
            # A dict, for an item may have been pushed for the same time twice.
            kept = {e[:2]: e for e in entries if self._holds(e[2], e[0])}
            self._entries = list(kept.values())
            heapq.heapify(self._entries)
            self._limit = max(LEAST, 2 * len(self._entries))

    def first(self) -> tuple[datetime, T] | None:
        """The earliest item and its time; None if nothing waits."""
        entries = self._entries
        while entries:
            time, _, item = entries[0]
            if self._holds(item, time):
                return time, item
            heapq.heappop(entries)
        return None

    def pop(self) -> None:
        """Take the first out."""
        heapq.heappop(self._entries)
