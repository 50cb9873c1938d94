"""Wakes workers: in this process at once, in others by the database's notifications.

PostgreSQL's NOTIFY isn't part of the sender's transaction, because notifying commits wait for each
other. A thread sends it after the commit, at a limited rate. A lost notification delays a delivery
by at most the poll interval.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from thorn_core.errors import StoreError

logger = logging.getLogger(__name__)

# Seconds.
NOTIFY_INTERVAL = 0.02
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
JOIN_TIMEOUT = 5.0


class Notifications:
    """Wakes workers for stores.

    Args:
        notify: Notifies other processes, or raises StoreError; None if the store can't notify.
        listening: Opens a connection that listens until the block ends, and yields the driver's
            connection (psycopg's or psycopg2's); None if the store can't listen.

    Example:
        >>> notifications, woken = Notifications(), []
        >>> forget = notifications.listen(lambda: woken.append("woken"))
        >>> notifications.tell()
        >>> forget()
        >>> notifications.tell()
        >>> woken
        ['woken']
    """

    def __init__(
        self,
        notify: Callable[[], object] | None = None,
        listening: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._notify_others, self._listening = notify, listening
        self._wakers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._pending = False
        self._told = threading.Event()
        self._stopping = threading.Event()
        self._notifier: threading.Thread | None = None
        self._listener: _Listener | None = None

    def tell(self) -> None:
        """Announce that new work may be claimable."""
        self.wake()
        if self._notify_others is None or self._stopping.is_set():
            return
        self._pending = True
        self._told.set()
        if self._notifier is None:
            with self._lock:
                if self._notifier is None:
                    self._notifier = threading.Thread(
                        target=self._notify,
                        args=[self._notify_others],
                        name="thorn-notify",
                        daemon=True,
                    )
                    self._notifier.start()

    def wake(self) -> None:
        """Wake the listeners of this process."""
        for wake in self._wakers:
            wake()

    def _notify(self, notify: Callable[[], object]) -> None:
        while True:
            self._told.wait()
            self._told.clear()
            if self._pending:
                self._pending = False
                try:
                    notify()
                except StoreError as error:
                    logger.debug("workers can't be notified: %s", error)
            if self._stopping.is_set():
                return
            self._stopping.wait(NOTIFY_INTERVAL)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on every notification; return a function that ends the calls."""
        with self._lock:
            self._wakers = [*self._wakers, wake]
            if self._listening is not None and self._listener is None:
                self._listener = _Listener(self._listening, self.wake)

        def forget() -> None:
            with self._lock:
                self._wakers = [other for other in self._wakers if other is not wake]
                listener = None if self._wakers else self._listener
                if listener is not None:
                    self._listener = None
            if listener is not None:
                listener.stop()

        return forget

    def close(self) -> None:
        """Stop the threads after they have sent outstanding notifications."""
        self._stopping.set()
        with self._lock:
            self._wakers = []
            listener, self._listener = self._listener, None
            notifier = self._notifier
        if listener is not None:
            listener.stop()
        if notifier is not None:
            self._told.set()
            notifier.join(JOIN_TIMEOUT)


class _Listener:
    """A thread that listens on its own connection."""

    def __init__(
        self, listening: Callable[[], AbstractContextManager[Any]], wake: Callable[[], None]
    ) -> None:
        self._listening, self._wake = listening, wake
        self._delay = FIRST_DELAY
        self._stopping = threading.Event()
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="thorn-listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._theirs.send(b"x")
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT)
        self._theirs.close()

    def _run(self) -> None:
        with self._ours:
            while not self._stopping.is_set():
                try:
                    with self._listening() as driver:
                        self._listen(driver)
                except Exception as error:
                    logger.debug("can't listen for notifications: %s", error)
                    self._stopping.wait(self._delay)
                    self._delay = min(2 * self._delay, LONGEST_DELAY)

    def _listen(self, driver: Any) -> None:
        self._delay = FIRST_DELAY
        # Notifications before this point are lost, so wake once.
        self._wake()
        with selectors.DefaultSelector() as selector:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            selector.register(self._ours, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if _received(driver):
                    self._wake()


def _received(driver: Any) -> bool:
    if hasattr(driver, "poll"):  # psycopg2
        driver.poll()
        received = bool(driver.notifies)
        driver.notifies.clear()
        return received
    return bool(list(driver.notifies(timeout=0)))
