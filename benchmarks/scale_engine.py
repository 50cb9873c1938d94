"""Discrete events: a clock that jumps from one to the next, and processors that are queued for."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

Then = Callable[..., Any]


class Clock:
    """Seconds since the beginning, and what is to happen when.

    What is to happen at the same time does so in the order in which it was asked for.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._serial = 0
        self._events: list[tuple[float, int, Then, tuple[Any, ...]]] = []

    def after(self, seconds: float, then: Then, *arguments: Any) -> None:
        """Call something later."""
        self._serial += 1
        heapq.heappush(self._events, (self.now + seconds, self._serial, then, arguments))

    def run(self, until: float) -> None:
        """Let happen what does before then."""
        events = self._events
        while events and events[0][0] < until:
            self.now, _, then, arguments = heapq.heappop(events)
            then(*arguments)
        self.now = until


class Cores:
    """Processors that serve who comes first, each one at a time.

    Args:
        clock: The time.
        number: How many.
    """

    def __init__(self, clock: Clock, number: int) -> None:
        self.number = number
        self.used = 0.0
        self._clock = clock
        self._free = number
        self._queue: deque[tuple[Callable[[], float], Then]] = deque()

    def run(self, work: Callable[[], float], then: Then) -> None:
        """Do work when a processor is free, and call something when it's done.

        Args:
            work: Called when it begins; says how many seconds it takes.
            then: Called at its end.
        """
        self._queue.append((work, then))
        if self._free:
            self._begin()

    def _begin(self) -> None:
        work, then = self._queue.popleft()
        self._free -= 1
        seconds = work()
        self.used += seconds
        self._clock.after(seconds, self._end, then)

    def _end(self, then: Then) -> None:
        self._free += 1
        if self._queue:
            self._begin()
        then()


class Thread:
    """Work that is done one after the other, on one of some processors.

    Args:
        cores: The processors.
    """

    def __init__(self, cores: Cores) -> None:
        self.used = 0.0
        self._cores = cores
        self._busy = False
        self._queue: deque[tuple[float, Then]] = deque()

    def run(self, seconds: float, then: Then) -> None:
        """Do work when what came before is done, and call something when it is, too."""
        self._queue.append((seconds, then))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        seconds, then = self._queue.popleft()
        self.used += seconds
        self._cores.run(lambda: seconds, lambda: self._end(then))

    def _end(self, then: Then) -> None:
        self._busy = False
        if self._queue:
            self._begin()
        then()
