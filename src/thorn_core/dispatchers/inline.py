"""Inline: the sender waits for the first attempts, but not for long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait

from thorn_core.ports.app import App
from thorn_core.values import Message

logger = logging.getLogger(__name__)


class InlineDispatcher:
    """Attempts all deliveries of the messages immediately; failed ones stay pending for a worker.

    The sender waits for these attempts, for `inline_timeout` at most. The remaining
    attempts continue in the background.

    Args:
        app: The app, whose engine it runs.
    """

    publishes = True

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._under_way: set[Future[None]] = set()

    def dispatch(self, messages: Sequence[Message]) -> Future[None]:
        """Start the first attempts; return a future that is done when they end."""
        future = self._app.submit(self._deliver([message.id for message in messages]))
        with self._lock:
            self._under_way.add(future)
        future.add_done_callback(self._ended)
        return future

    async def _deliver(self, message_ids: list[str]) -> None:
        try:
            await self._app.engine.adrain(message_ids, at_once=True)
        except Exception:
            # The messages are in the store; a worker or the next send delivers them.
            logger.exception("%d messages could not be delivered immediately", len(message_ids))

    def _ended(self, future: Future[None]) -> None:
        with self._lock:
            self._under_way.discard(future)

    def close(self) -> None:
        """Wait for attempts in flight, within the grace period."""
        with self._lock:
            under_way = set(self._under_way)
        wait(under_way, self._app.settings.grace_period)
