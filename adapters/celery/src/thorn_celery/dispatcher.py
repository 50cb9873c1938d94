"""The dispatcher: Celery workers deliver the messages in the store."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from thorn_celery.hints import Hints
from thorn_celery.options import PLAIN, Options, Route, options_of
from thorn_celery.registry import celery_of, note_use
from thorn_core import ConfigurationError, Message, Thorn


class CeleryDispatcher:
    """Sends tasks with the ids of messages; never waits for the broker.

    The Celery app is chosen at the first send: the one installed for the app, otherwise Celery's
    current app.

    Args:
        app: The app.

    Raises:
        ConfigurationError: Other processes can't reach the app's store.

    Attributes:
        sweeping: Lock of the thread in this process that continues a sweep.
        closing: Set when the dispatcher is closing.
    """

    publishes = True

    def __init__(self, app: Thorn) -> None:
        if not app.store.shared:
            raise ConfigurationError(
                f"dispatcher 'celery' with {app.store!r}, which no other process can reach; use a"
                f" database, Thorn(store='postgresql+psycopg://…'), or use the dispatcher"
                f" 'background'"
            )
        self._app = app
        self.sweeping = threading.Lock()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._made: tuple[Hints, Options] | None = None
        note_use(app)

    @property
    def options(self) -> Options:
        """The settings in the Celery app's configuration."""
        return self._parts()[1]

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Enqueue tasks for these messages."""
        hints, options = self._parts()
        if not options.routes:
            hints.add(PLAIN, [message.id for message in messages])
            return
        by_route: dict[Route, list[str]] = {}
        for message in messages:
            by_route.setdefault(options.route_of(message.event), []).append(message.id)
        for route, ids in by_route.items():
            hints.add(route, ids)

    def tell(self, route: Route, message_ids: Sequence[str]) -> None:
        """Enqueue tasks for messages on a route; an id given twice gets two tasks.

        Args:
            route: The route of the tasks.
            message_ids: Ids of messages in the store.
        """
        self._parts()[0].add(route, message_ids)

    def close(self) -> None:
        """Send the waiting tasks, if the broker accepts them in time."""
        self.closing.set()
        with self._lock:
            made = self._made
        if made is not None:
            made[0].close()

    def _parts(self) -> tuple[Hints, Options]:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    celery = celery_of(self._app)
                    options = options_of(celery.conf)
                    self._made = (Hints(celery, self._app.settings.chunksize), options)
        return self._made


def dispatcher_of(app: Thorn) -> CeleryDispatcher | None:
    """Return an app's Celery dispatcher, whether or not it is the app's default.

    None if a substitute replaces all dispatchers, as in tests.
    """
    dispatcher = app.dispatcher("celery")
    return dispatcher if isinstance(dispatcher, CeleryDispatcher) else None
