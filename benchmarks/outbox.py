"""The cost of sending in the user's transaction, compared with one INSERT."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from common import PAYLOAD, Figure, alternate, local_settings
from databases import NAMES, database
from sqlalchemy import Engine, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from thorn_core import Event, ModelEvent, Thorn, webhook_model
from thorn_core.codecs import dump_json
from thorn_sqlalchemy import SqlStore, define_tables

DATA = dump_json(PAYLOAD)
# Sends per transaction, as in a typical request handler.
PER_TRANSACTION = 10


def like_sized(engine: Engine) -> Callable[[Session], object]:
    """Create a table like that of messages; return a function that inserts a row by a session."""
    table = define_tables(MetaData(), prefix="like_sized_").messages
    table.create(engine)
    insert, serial = table.insert(), iter(range(10**9))

    def row(session: Session) -> None:
        key = time.time_ns().to_bytes(8, "big") + next(serial).to_bytes(8, "big")
        values = {"id": key, "event": "a.b", "data": DATA, "at": 1, "sender": None}
        session.execute(insert, {**values, "extra": None})

    return row


def timed(engine: Engine, number: int, each: Callable[[Session, int], object]) -> float:
    """Return the microseconds per call, in transactions of a few calls."""
    begun = time.perf_counter()
    for start in range(0, number, PER_TRANSACTION):
        with Session(engine) as session, session.begin():
            for one in range(start, start + PER_TRANSACTION):
                each(session, one)
    return (time.perf_counter() - begun) / number * 1e6


def send(url: str, name: str, number: int, rounds: int) -> Figure:
    """Compare an event sent within a session with the INSERT of a row of the same size."""
    with Thorn(store=SqlStore(url), dispatcher="outbox", settings=local_settings()) as app:
        app.store.create()
        engine = app.store.engine
        row = like_sized(engine)
        event = Event("a.b", app=app)
        peer, subject, ratio = alternate(
            lambda: timed(engine, number, lambda session, _: row(session)),
            lambda: timed(engine, number, lambda session, _: event.send(PAYLOAD, within=session)),
            rounds,
        )
    return Figure(
        name=f"Event.send within a transaction, {name}",
        subject=subject,
        peer=peer,
        against="the INSERT of a row of the same size through the same session",
        unit="µs",
        ratio=ratio,
        target="<=1.5",
    )


def declare(app: Thorn) -> tuple[type, type[Any], type[Any]]:
    """Declare a base, a model with three events, and the same model without events."""

    class Base(DeclarativeBase):
        pass

    class Columns:
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(200))
        state: Mapped[str] = mapped_column(String(20))
        body: Mapped[str] = mapped_column(Text)

    @webhook_model
    class Watched(Columns, Base):
        __tablename__ = "watched"

        class webhooks:  # noqa: N801 - the name that webhook_model looks for
            fields = ("id", "title", "state", "body")
            on_create = ModelEvent("article.created", app=app)
            on_change = ModelEvent("article.changed", app=app)
            on_publish = ModelEvent(
                "article.published", state__now_eq="PUBLISHED", app=app
            ).dispatches_on_change()

    class Plain(Columns, Base):
        __tablename__ = "plain"

    return Base, Watched, Plain


def save(url: str, name: str, number: int, rounds: int) -> Figure:
    """Compare saves of a model with three events with one without events, plus an INSERT."""
    with Thorn(store=SqlStore(url), dispatcher="outbox", settings=local_settings()) as app:
        app.store.create()
        engine = app.store.engine
        base, watched, plain = declare(app)
        base.metadata.create_all(engine)
        row = like_sized(engine)

        def create(model: type[Any]) -> Any:
            return model(title="Hello", state="DRAFT", body="x" * 300)

        def save_watched(session: Session, _: int) -> None:
            session.add(create(watched))
            session.flush()

        def save_plain(session: Session, _: int) -> None:
            session.add(create(plain))
            session.flush()
            row(session)

        peer, subject, ratio = alternate(
            lambda: timed(engine, number, save_plain),
            lambda: timed(engine, number, save_watched),
            rounds,
        )
    return Figure(
        name=f"a save of a model with three events, no subscriptions, {name}",
        subject=subject,
        peer=peer,
        against="the same without events, plus one INSERT",
        unit="µs",
        ratio=ratio,
        target="<=1.3",
    )


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    number, rounds = (200, 1) if quick else (3_000, 7)
    for name in NAMES:
        for measure in (send, save):
            with database(name) as url:
                if url is not None:
                    yield measure(url, name, number, rounds)
