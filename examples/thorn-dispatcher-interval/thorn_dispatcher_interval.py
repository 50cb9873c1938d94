"""A Thorn dispatcher that delivers at intervals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from thorn_core import Message, hookimpl
from thorn_core.ports import App

INTERVAL = 2.0  # seconds


class IntervalDispatcher:
    """Collects messages and delivers them every INTERVAL seconds."""

    publishes = True

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Deliver these messages, which are in the store, when the interval ends."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(INTERVAL, self._deliver)
                self._timer.daemon = True
                self._timer.start()

    def _deliver(self) -> None:
        with self._lock:
            self._timer = None
        self._app.submit(self._app.engine.adrain()).result()

    def close(self) -> None:
        """Deliver the messages that are still waiting."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._app.submit(self._app.engine.adrain()).result()


@hookimpl
def thorn_dispatchers() -> Mapping[str, Callable[[App], IntervalDispatcher]]:
    """Add the dispatcher `interval`."""
    return {"interval": IntervalDispatcher}
