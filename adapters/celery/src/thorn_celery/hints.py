"""Hints: tasks with the ids of messages, sent by a separate thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from thorn_celery.options import Route

logger = logging.getLogger(__name__)

DELIVER = "thorn.deliver"
# Seconds after a task to collect ids for the next task. At 100 messages per second, a task has ten.
LINGER = 0.1
# Maximum number of ids that wait for the broker; the sweep finds the others.
LIMIT = 10_000
# Maximum seconds for the broker's response, and for sending remaining ids when closing.
BROKER_SECONDS = 5.0
CLOSE_SECONDS = 2.0
# Seconds between attempts to reach a broker that is down.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0


class Hints:
    """Sends tasks with message ids to a Celery app, without blocking senders.

    The sweep finds messages whose tasks can't be sent.

    Args:
        celery: The Celery app.
        chunksize: Maximum number of messages per task.
    """

    def __init__(self, celery: Any, chunksize: int) -> None:
        self._celery = celery
        self._chunksize = chunksize
        self._changed = threading.Condition()
        self._waiting: dict[Route, list[str]] = {}
        self._count = 0
        self._closing = False
        self._delay = 0.0
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._producer: Any = None

    def add(self, route: Route, message_ids: Sequence[str]) -> None:
        """Enqueue ids to be sent soon; an id given several times gets as many tasks."""
        with self._changed:
            if self._closing or self._count + len(message_ids) > LIMIT:
                return
            self._waiting.setdefault(route, []).extend(message_ids)
            self._count += len(message_ids)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="thorn-celery", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Send the waiting ids, if the broker accepts them soon; may be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                waiting, self._waiting, self._count = self._waiting, {}, 0
                closing = self._closing
            self._tell(waiting)
            if closing:
                self._disconnect()
                return
            with self._changed:
                if self._delay:
                    self._changed.wait_for(lambda: self._closing, self._delay)
                else:
                    self._changed.wait_for(self._enough, LINGER)

    def _enough(self) -> bool:
        return self._closing or self._count >= self._chunksize

    def _tell(self, waiting: dict[Route, list[str]]) -> None:
        try:
            for route, message_ids in waiting.items():
                for some in _chunks(message_ids, self._chunksize):
                    self._send(some, route)
        except Exception as error:
            self._delay = min(max(2 * self._delay, FIRST_DELAY), LONGEST_DELAY)
            logger.warning(
                "can't send tasks to the broker: %s; the sweep will find the messages, and the"
                " broker is retried in %.0f s",
                _reason(error),
                self._delay,
            )
        else:
            if self._delay and waiting:
                self._delay = 0.0
                logger.warning("the broker accepts tasks again")

    def _send(self, message_ids: list[str], route: Route) -> None:
        """Send one task; reconnect once if the idle connection broke."""
        known = self._producer is not None
        try:
            self._send_now(message_ids, route)
        except Exception:
            self._disconnect()
            if not known:
                raise
            self._send_now(message_ids, route)

    def _send_now(self, message_ids: list[str], route: Route) -> None:
        self._celery.tasks[DELIVER].apply_async(
            args=[message_ids],
            kwargs={"again": True} if route.again else {},
            producer=self._connected(),
            retry=False,
            **route.options(),
        )

    def _connected(self) -> Any:
        if self._producer is None:
            self._connection = bounded_connection(self._celery)
            self._producer = self._celery.amqp.Producer(self._connection)
        return self._producer

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                logger.debug("can't close a broken connection to the broker", exc_info=True)


def _reason(error: Exception) -> str:
    # The error about a missing package doesn't name the extra to install.
    more = " (Redis needs pip install 'thorn-celery[redis]')"
    said = str(error) or type(error).__name__
    return said + more if isinstance(error, ImportError) else said


def _chunks(message_ids: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(message_ids), size):
        yield list(dict.fromkeys(message_ids[start : start + size]))


def bounded_connection(celery: Any) -> Any:
    """Open a connection to the broker with few retries; Celery's own retries much longer."""
    connection = celery.connection_for_write(
        connect_timeout=min(celery.conf.broker_connection_timeout or BROKER_SECONDS, BROKER_SECONDS)
    )
    limits = {
        "amqp": {"read_timeout": BROKER_SECONDS, "write_timeout": BROKER_SECONDS},
        "redis": {"socket_timeout": BROKER_SECONDS, "socket_connect_timeout": BROKER_SECONDS},
    }
    once = {"interval_start": 0, "interval_step": 0, "interval_max": 0}
    connection.transport_options = {
        # Tries each of several brokers once.
        "max_retries": len(connection.alt) or 0,
        **once,
        **limits.get(connection.transport.driver_type, {}),
        **connection.transport_options,
    }
    return connection
