"""Background: a worker in this process, on the app's own thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

from thorn_core.ports.app import App
from thorn_core.values import Message

logger = logging.getLogger(__name__)


class BackgroundDispatcher:
    """Starts a worker with the first message; the store wakes it for later ones.

    Args:
        app: The app, whose engine it runs.
    """

    publishes = True

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Start the worker if it isn't running."""
        if self._running is None or self._running.done():
            with self._lock:
                if self._running is None or self._running.done():
                    self._running = self._app.submit(self._app.engine.arun())
                    self._running.add_done_callback(_log_failure)

    def close(self) -> None:
        """Deliver due messages if no other process can, within the grace period, and stop."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        if not self._app.store.shared:
            with contextlib.suppress(TimeoutError):
                self._app.submit(self._drain()).result()
        self._app.engine.stop()
        with contextlib.suppress(CancelledError):
            running.result()

    async def _drain(self) -> None:
        async with asyncio.timeout(self._app.settings.grace_period):
            await self._app.engine.adrain()


def _log_failure(running: Future[None]) -> None:
    error = None if running.cancelled() else running.exception()
    if error is not None:
        logger.error(
            "the background worker failed; messages wait in the store until it can run",
            exc_info=error,
        )
