"""Deadlines of requests: one shared timer, because a timer per request is as slow as signing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

# Maximum delay of a deadline in seconds.
INTERVAL = 0.02


class Deadlines:
    """Cancels overdue requests on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_task: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, seconds: float, awaitable: Awaitable[T]) -> T:
        """Await an awaitable for at most `seconds`.

        Raises:
            TimeoutError: It took longer and was cancelled.
        """
        # Pass the loop: looking it up makes a system call for the process id.
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._by_task[task] = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._by_task.pop(task, None)
            self._expired.discard(task)

    def _look(self) -> None:
        """Cancel overdue requests, and reschedule while deadlines are pending."""
        now = self._loop.time()
        for task in [task for task, deadline in self._by_task.items() if deadline <= now]:
            del self._by_task[task]
            self._expired.add(task)
            task.cancel()
        self._timer = self._loop.call_later(INTERVAL, self._look) if self._by_task else None
