"""What the tests of the outbox share: an app, its database, and what became of what was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs
from sqlalchemy import Engine, create_engine, delete, event, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from thorn_core import Event, Message, Thorn, hookimpl
from thorn_core.keys import message_id
from thorn_sqlalchemy import SqlStore


class Base(DeclarativeBase):
    """What a program has of its own."""


class Article(Base):
    """A row of the program's."""

    __tablename__ = "articles"
    __table_args__ = ({"mysql_engine": "InnoDB"},)

    id: Mapped[int] = mapped_column(primary_key=True)


class Abandoned(Exception):
    """Rolls a transaction or a savepoint back."""


@contextmanager
def abandoned() -> Iterator[None]:
    """What is raised to abandon something ends here."""
    with suppress(Abandoned):
        yield


class Recorder:
    """A dispatcher, and its plugin, that remembers what it was told of, and whether it was there.

    Attributes:
        told: Numbers of the messages.
        missing: Numbers of those that were not in the store when it was told.
    """

    publishes = True

    def __init__(self) -> None:
        self.told: list[int] = []
        self.missing: list[int] = []

    @hookimpl
    def thorn_dispatchers(self) -> dict[str, Any]:
        def make(app: Thorn) -> Recorder:
            self._app = app
            return self

        return {"recorder": make}

    def dispatch(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.told.append(number_of(message))
            if self._app.message(message.id) is None:
                self.missing.append(number_of(message))

    def close(self) -> None:
        pass


def number_of(message: Message) -> int:
    return message.payload["number"]


@attrs.define
class World:
    """A program with an app.

    Attributes:
        kind: Of the database.
        url: Of the database.
        engine: The program's own; the store has another one to the same database.
        app: The app.
        recorder: Its dispatcher.
        event: What is sent.
    """

    kind: str
    url: str
    engine: Engine
    app: Thorn
    recorder: Recorder
    event: Event

    def send(self, number: int, within: Any, **options: Any) -> Any:
        return self.event.send({"number": number}, within=within, **options)

    async def asend(self, number: int, within: Any, **options: Any) -> Any:
        return await self.event.asend({"number": number}, within=within, **options)

    def kept(self) -> list[int]:
        """The numbers of the messages in the store, in the order of sending."""
        table = self.app.store.tables.messages
        with self.app.store.engine.connect() as connection:
            keys = connection.scalars(select(table.c.id).order_by(table.c.id)).all()
        return [number_of(self.app.message(message_id(key))) for key in keys]

    def articles(self) -> list[int]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Article.id).order_by(Article.id)))

    @property
    def told(self) -> list[int]:
        assert self.recorder.missing == []
        return self.recorder.told

    def clear(self) -> None:
        with self.app.store.engine.begin() as connection:
            for table in (*self.app.store.tables.all(), Article.__table__):
                connection.execute(delete(table))
        self.recorder.told.clear()
        self.recorder.missing.clear()


def with_savepoints(engine: Engine) -> Engine:
    """Let savepoints work on SQLite: the driver's own BEGIN comes too late for them."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connected(connection: Any, record: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begins(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine


def asynchronous(url: str, make: Callable[..., AsyncEngine]) -> AsyncEngine:
    """An engine with an asynchronous driver to the same database."""
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
    parsed = make_url(url)
    engine = make(parsed.set(drivername=drivers[parsed.get_backend_name()]))
    with_savepoints(engine.sync_engine)
    return engine


@contextmanager
def world_at(kind: str, url: str) -> Iterator[World]:
    engine = with_savepoints(create_engine(url))
    store = SqlStore(url)
    store.create()
    Base.metadata.create_all(engine)
    recorder = Recorder()
    with Thorn(store=store, dispatcher="recorder", plugins=[recorder]) as app:
        yield World(kind, url, engine, app, recorder, Event("article.written", app=app))
    engine.dispose()
