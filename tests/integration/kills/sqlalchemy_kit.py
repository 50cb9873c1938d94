"""The kit of `thorn-sqlalchemy`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import attrs
from sqlalchemy import Engine, String, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from kills.kit import Harm
from thorn_core import Settings, StoreError, Thorn

KEY = String(64)


class Base(DeclarativeBase):
    """What a writer has of its own."""


class Truth(Base):
    """A message that was sent in the same transaction."""

    __tablename__ = "truth"
    __table_args__ = ({"mysql_engine": "InnoDB"},)

    key: Mapped[str] = mapped_column(KEY, primary_key=True)
    message_id: Mapped[str] = mapped_column(KEY)
    event: Mapped[str] = mapped_column(KEY)


@attrs.define(slots=False)
class SqlAlchemyKit:
    """Programs that use a Session.

    Attributes:
        url: Of the database.
    """

    url: str
    most = 80
    rate = 1000
    errors = (SQLAlchemyError, StoreError)
    modules = (__name__, "thorn_sqlalchemy.plugin", "psycopg", "pymysql")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    @property
    def backend(self) -> str:
        return make_url(self.url).get_backend_name()

    @property
    def lease(self) -> float:
        # A SQLite file has one writer at a time, and who waits may be unlucky for long.
        return 12.0 if self.backend == "sqlite" else 6.0

    @cached_property
    def engine(self) -> Engine:
        if self.backend != "sqlite":
            return create_engine(self.url)
        engine = create_engine(self.url, connect_args={"timeout": 30, "isolation_level": None})
        # The driver's own BEGIN comes too late for a savepoint.
        event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
        return engine

    def prepare(self) -> None:
        with Thorn(store=self.url, dispatcher="outbox") as app:
            app.store.create()
        Base.metadata.create_all(self.engine)

    def app(self, settings: Settings, *, number: int = 0, dispatcher: str = "outbox") -> Thorn:
        # Some use the engine that their transactions are on; others one of the store's own.
        source = self.engine if number % 2 and self.backend != "sqlite" else self.url
        return Thorn(store=source, dispatcher=dispatcher, settings=settings)

    def work(self, app: Thorn) -> None:
        app.worker().run()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session

    def savepoint(self, handle: Session) -> Any:
        return handle.begin_nested()

    def note(self, handle: Session, key: str, message_id: str, event: str) -> None:
        handle.add(Truth(key=key, message_id=message_id, event=event))

    def count(self) -> int:
        with Session(self.engine) as session:
            return session.scalars(select(func.count()).select_from(Truth)).one()

    def truth(self) -> Mapping[str, tuple[str, str]]:
        with Session(self.engine) as session:
            return {t.message_id: (t.key, t.event) for t in session.scalars(select(Truth))}

    def harms(self) -> Mapping[str, Harm]:
        return {} if self.backend == "sqlite" else {"connection broken": self._break_connections}

    def _break_connections(self, rng: random.Random) -> int:
        if self.backend == "postgresql":
            others = (
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            end = "SELECT pg_terminate_backend(:id)"
        else:
            others = (
                "SELECT id FROM information_schema.processlist"
                " WHERE db = database() AND id <> connection_id()"
            )
            end = "KILL CONNECTION :id"
        broken = 0
        with self.engine.connect() as connection:
            ids = sorted(connection.execute(text(others)).scalars())
            for number in rng.sample(ids, min(len(ids), rng.randint(1, 3))):
                with suppress(SQLAlchemyError):  # it has ended meanwhile
                    connection.execute(text(end), {"id": number})
                    broken += 1
        return broken

    def close(self) -> None:
        self.engine.dispose()
