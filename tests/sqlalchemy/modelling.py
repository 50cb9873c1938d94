"""What the tests of models share: an app on the models' own database, and what it was sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from sqlalchemy import Engine, MetaData, create_engine, event, make_url, select
from sqlalchemy.orm import Session

from thorn_core import Message, Settings, Thorn, signals
from thorn_core.current_app import app_here, set_default_app
from thorn_core.keys import message_id
from thorn_core.values import EMPTY
from thorn_sqlalchemy import SqlStore


@attrs.define
class World:
    """An app, its database, and what has been sent so far.

    Attributes:
        engine: Of the models' tables and the store's.
        app: The default one.
        store: Its store.
    """

    engine: Engine
    app: Thorn
    store: SqlStore
    _seen: set[str] = attrs.field(factory=set)

    def session(self, **options) -> Session:
        return Session(self.engine, **options)

    def messages(self) -> list[Message]:
        """Those committed since the last call, in the order they were sent."""
        table = self.store.tables.messages
        with self.engine.connect() as connection:
            keys = connection.scalars(select(table.c.id).order_by(table.c.id)).all()
        ids = [message_id(key) for key in keys]
        fresh = [id_ for id_ in ids if id_ not in self._seen]
        self._seen.update(fresh)
        return [self.store.message(id_) for id_ in fresh]

    def names(self) -> list[str]:
        return [message.event for message in self.messages()]

    def sent(self) -> list[tuple]:
        """Event, payload, and the ids of what was added or removed, if it says."""
        return [
            (m.event, m.payload, *([list(m.context["related"])] if m.context != EMPTY else []))
            for m in self.messages()
        ]

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The statements executed inside the block."""
        seen: list[str] = []

        def note(connection, cursor, statement, parameters, context, executemany):
            seen.append(" ".join(statement.split()))

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(self.engine, "before_cursor_execute", note)


@contextmanager
def world_of(url: str, metadata: MetaData, **settings) -> Iterator[World]:
    """An app on a database with these tables; a server's has no rows and only ours afterwards."""
    options = {}
    if make_url(url).get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": 1}
    engine = create_engine(url, **options)
    store = SqlStore(engine)
    store.create()
    metadata.create_all(engine)
    outer = app_here()
    with Thorn(store=store, dispatcher="outbox", settings=Settings(**settings)) as app:
        yield World(engine, app.make_default(), store)
    set_default_app(outer)
    if engine.dialect.name != "sqlite":  # of which each test has a file
        metadata.drop_all(engine)
        with engine.begin() as connection:
            for table in store.tables.all():
                connection.execute(table.delete())
    engine.dispose()
    engine.dispose()


NAMED = ("created", "changed", "deleted", "m2m_added", "m2m_removed", "m2m_cleared")


@contextmanager
def hearing() -> Iterator[list[tuple]]:
    """What the model signals say: which one, the instance, and their values."""
    heard: list[tuple] = []

    def listen(name):
        def receive(model, *, instance, **values):
            assert model is type(instance)
            heard.append((name, instance, values))

        return receive

    receivers = [(getattr(signals, f"model_{name}"), listen(name)) for name in NAMED]
    for signal, receiver in receivers:
        signal.connect(receiver)
    yield heard
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def former(heard) -> list[dict]:
    """The former values told, of each change."""
    return [values["previous"] for name, _, values in heard if name == "changed"]
