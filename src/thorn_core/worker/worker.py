"""The worker: an engine that runs, drains, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Self

from thorn_core.errors import ConfigurationError
from thorn_core.worker.drain import begin, drain
from thorn_core.worker.engine import Engine
from thorn_core.worker.load import SLOW_SECONDS
from thorn_core.worker.recorder import LONGEST_DELAY, log_store_failure
from thorn_core.worker.thread import LoopThread, result_of, stopping_on_signals
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)

# Seconds before the first retry after the store failed; at most the poll interval.
FIRST_DELAY = 1.0


class Worker:
    """The engine at work on a store, created by `Thorn.worker()`.

    It belongs to the event loop it first runs on: `run` and `drain` use the app's own,
    `arun` and `adrain` the caller's.

    Args:
        wiring: The app's wiring.
        thread: The app's loop thread.
    """

    def __init__(self, wiring: Wiring, thread: LoopThread) -> None:
        self._wiring = wiring
        self._thread = thread
        self._engine: Engine | None = None
        self._stopping = False

    # -- running

    def run(self) -> None:
        """Work until `stop`, SIGTERM or Ctrl-C; then let requests in flight finish, and return.

        A second Ctrl-C returns without waiting for them.
        """
        future = self._thread.submit(self.arun())
        with stopping_on_signals(self.stop):
            result_of(future)

    def drain(self) -> int:
        """Route and attempt all due deliveries, each once, and close connections.

        Returns:
            The number of deliveries attempted.
        """
        return self._thread.run(self._drain_and_close())

    async def _drain_and_close(self) -> int:
        try:
            return await self.adrain()
        finally:
            await self.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Make `run` or `drain` return soon; may be called from any thread or signal handler."""
        self._stopping = True
        engine = self._engine
        if engine is not None:
            engine.stopping = True
            with contextlib.suppress(RuntimeError):
                engine.loop.call_soon_threadsafe(engine.interrupt)

    @property
    def concurrency(self) -> int:
        """The maximum number of concurrent requests."""
        return self._wiring.settings.concurrency

    @property
    def in_flight(self) -> int:
        """The number of claimed deliveries: waiting, in flight, or not yet recorded."""
        engine = self._engine
        return 0 if engine is None else len(engine.leases)

    async def arun(self) -> None:
        """Work on the caller's loop until `stop` or cancellation."""
        engine = self._bound()
        forget = self._wiring.store.on_work(self._woken)
        delay = 0.0
        try:
            while not engine.stopping:
                engine.wake.clear()
                try:
                    worked = await engine.pump(self._wiring.clock())
                except Exception as error:
                    first = min(self._wiring.settings.poll_interval, FIRST_DELAY)
                    delay = min(max(2 * delay, first), LONGEST_DELAY)
                    log_store_failure("can't work", error, delay)
                    await self._sleep(engine, delay)
                    continue
                if delay:
                    logger.warning("the store works again", extra={"retry_in": None})
                    delay = 0.0
                if worked:
                    await asyncio.sleep(0)
                else:
                    await self._pause(engine, self._patience(engine))
        finally:
            forget()
            await self.aclose()

    async def adrain(
        self, message_ids: Collection[str] | None = None, *, at_once: bool = False
    ) -> int:
        """Route and attempt due deliveries of all messages or of some, each delivery once.

        Connections stay open for the next call; `aclose` or `async with` closes them.

        Args:
            message_ids: Restricts the drain to these messages.
            at_once: Ignore the limits per recipient, because a sender waits.

        Returns:
            The number of deliveries attempted.
        """
        return await drain(self._bound(), self._wiring.clock(), message_ids, at_once=at_once)

    async def abegin(self, message_ids: Collection[str], seconds: float) -> bool:
        """Route these messages and start their due requests; the requests then continue.

        It waits for capacity while the number of requests in flight is at its limit, in total or
        per recipient. It leaves deliveries to an unresponsive recipient in the store.

        Args:
            message_ids: The messages' ids.
            seconds: Maximum duration, without calls of the store.

        Returns:
            False if time ran out before all requests were started.
        """
        return await begin(self._bound(), self._wiring.clock(), message_ids, seconds)

    async def aclose(self) -> None:
        """Give requests in flight the grace period, return the rest to pending, and close."""
        engine = self._engine
        if engine is not None:
            await engine.close()
            self._engine = None
        self._stopping = False

    def _bound(self) -> Engine:
        engine = self._engine
        if engine is None:
            engine = self._engine = Engine(self._wiring, self.adrain)
            engine.stopping = self._stopping
        elif engine.loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "this worker belongs to another event loop; create one for this loop with"
                " app.worker()"
            )
        return engine

    def _woken(self) -> None:
        engine = self._engine
        if engine is None:
            return
        engine.routable = True
        if not engine.wake.is_set():
            with contextlib.suppress(RuntimeError):
                engine.loop.call_soon_threadsafe(engine.wake.set)

    # -- waiting

    async def _pause(self, engine: Engine, seconds: float) -> None:
        def look_again() -> None:
            engine.routable = True
            engine.wake.set()

        timer = engine.loop.call_later(seconds, look_again)
        try:
            await engine.wake.wait()
        finally:
            timer.cancel()

    async def _sleep(self, engine: Engine, seconds: float) -> None:
        """Wait for some seconds, even if new work arrives, unless the worker must stop."""
        until = engine.loop.time() + seconds
        while not engine.stopping and (left := until - engine.loop.time()) > 0:
            engine.wake.clear()
            await self._pause(engine, left)

    def _patience(self, engine: Engine) -> float:
        longest = self._wiring.settings.poll_interval
        if engine.load.full:
            longest = min(longest, SLOW_SECONDS)
        if self._wiring.store.shared:
            return longest
        now = self._wiring.clock()
        due = self._wiring.store.next_due(now)
        if due is None:
            return longest
        return min(longest, max((due - now).total_seconds(), 0.001))
