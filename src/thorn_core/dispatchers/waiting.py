"""Let a sender wait for a dispatch, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future, wait
from time import monotonic

import attrs

from thorn_core.worker.thread import in_event_loop


@attrs.frozen
class Waiting:
    """The future that a sender waits for, and the deadline.

    Attributes:
        future: From the dispatcher.
        until: The deadline, by `time.monotonic`.
    """

    future: Future[None]
    until: float

    def wait(self) -> None:
        """Wait, except inside a running event loop, which the future may need."""
        if not in_event_loop():
            wait((self.future,), max(self.until - monotonic(), 0))
            self._raise()

    async def wait_async(self) -> None:
        """Wait without blocking the event loop; cancellation doesn't stop the deliveries."""
        ended = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_Resolving(ended))
        await asyncio.wait((ended,), timeout=max(self.until - monotonic(), 0))
        self._raise()

    def _raise(self) -> None:
        if self.future.done():
            self.future.result()


@attrs.frozen
class _Resolving:
    """Resolves a future of an event loop, if the loop is still running."""

    ended: asyncio.Future[None]

    def __call__(self, future: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):
            self.ended.get_loop().call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
