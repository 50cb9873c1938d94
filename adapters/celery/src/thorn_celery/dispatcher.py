"""The dispatcher: workers of Celery deliver what is in the store."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from thorn_celery.hints import Hints
from thorn_celery.installation import celery_of, note_use
from thorn_celery.options import PLAIN, Options, Route, options_of
from thorn_core import ConfigurationError, Message, Thorn


class CeleryDispatcher:
    """Sends tasks with the ids of messages; never waits for the broker.

    Which Celery app that is is known at the first send: the one that was installed for the app, or
    else Celery's current one.

    Args:
        app: Whose messages they are.

    Raises:
        ConfigurationError: The app's store is one that other processes don't see.

    Attributes:
        sweeping: Held by whoever looks further for what is due, in this process.
        closing: Set as soon as this is to end.
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
        """What the Celery app's configuration says."""
        return self._parts()[1]

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Have workers told of these."""
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
        """Have workers told of messages, by a route; one given twice, in two chunks, by two tasks.

        Args:
            route: The way of the tasks.
            message_ids: Ids of messages in the store.
        """
        self._parts()[0].add(route, message_ids)

    def close(self) -> None:
        """Tell of what waits, if the broker takes it at once."""
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
    """An app's dispatcher of this kind, whether or not it is the one that sends use.

    None where another one stands in for all of them, as in tests.
    """
    dispatcher = app.dispatcher("celery")
    return dispatcher if isinstance(dispatcher, CeleryDispatcher) else None
