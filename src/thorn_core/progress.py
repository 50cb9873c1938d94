"""Progress: waiting for what workers do, in this process or in another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

# Seconds between looks; each pause is twice the one before.
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.25


class Progress:
    """Wakes those who wait when a worker has got on; while nobody waits it costs nothing."""

    def __init__(self) -> None:
        self._made = threading.Condition()
        self._waiters = 0

    def made(self) -> None:
        """A worker of this process has got on."""
        if self._waiters:
            with self._made:
                self._made.notify_all()

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done, so many seconds at most; False if the time was up."""
        deadline = None if timeout is None else monotonic() + timeout
        pause = FIRST_PAUSE
        with self._made:
            self._waiters += 1
        try:
            while not done():
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                # Other processes can't notify; looking at their work now and then is enough.
                with self._made:
                    self._made.wait(pause if left is None else min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            return True
        finally:
            with self._made:
                self._waiters -= 1
