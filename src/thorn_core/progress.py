"""Progress: waiting for workers in this process or another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from time import monotonic

from thorn_core.errors import ConfigurationError
from thorn_core.worker.thread import in_event_loop

# Seconds between polls; each pause is twice the previous one.
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.25


class Progress:
    """Wakes waiting callers when a worker makes progress; free while nothing waits."""

    def __init__(self) -> None:
        self._made = threading.Condition()
        self._waiters = 0
        self._wakes: set[Callable[[], object]] = set()

    def made(self) -> None:
        """Signal progress of a worker of this process."""
        if self._waiters:
            with self._made:
                self._made.notify_all()
                for wake in self._wakes:
                    wake()

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition is met; return False after a timeout in seconds.

        Raises:
            ConfigurationError: Called inside a running event loop, which it would block.
        """
        if in_event_loop():
            raise ConfigurationError("waiting here would block the event loop; use: await receipt")
        deadline = None if timeout is None else monotonic() + timeout
        pause = FIRST_PAUSE
        with self._made:
            self._waiters += 1
        try:
            while not done():
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                # Other processes can't notify this one, so poll.
                with self._made:
                    self._made.wait(pause if left is None else min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            return True
        finally:
            with self._made:
                self._waiters -= 1

    async def await_until(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a condition is met, without blocking the event loop."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(woken.set)

        pause = FIRST_PAUSE
        with self._made:
            self._waiters += 1
            self._wakes.add(wake)
        try:
            while not await done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), pause)
                woken.clear()
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            with self._made:
                self._waiters -= 1
                self._wakes.discard(wake)
