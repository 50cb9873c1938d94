"""The outbox: what is sent within a transaction shares its fate."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from contextlib import contextmanager

import pytest
from outbox import Abandoned, Article, Recorder, abandoned, asynchronous, with_savepoints, world_at
from sqlalchemy import MetaData, create_engine, event, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from thorn_core import ConfigurationError, Event, Settings, StoreError, Thorn, buffer_events
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore, define_tables

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


@pytest.fixture(scope="module")
def shared_world(shared_place):
    with world_at(shared_place.kind, shared_place.url) as world:
        yield world


@pytest.fixture
def world(shared_world):
    yield shared_world
    shared_world.clear()


@pytest.fixture
def sqlite_world(tmp_path):
    with world_at("sqlite", f"sqlite:///{tmp_path / 'thorn.db'}") as world:
        yield world


# -- handles: each a block that commits at its end


@contextmanager
def a_session(engine):
    with Session(engine) as session, session.begin():
        yield session


@contextmanager
def a_scoped_session(engine):
    registry = scoped_session(sessionmaker(engine))
    try:
        with registry.begin():
            yield registry
    finally:
        registry.remove()


@contextmanager
def a_connection(engine):
    with engine.begin() as connection:
        yield connection


HANDLES = pytest.mark.parametrize(
    "within", [a_session, a_scoped_session, a_connection], ids=lambda f: f.__name__[2:]
)


@HANDLES
def test_what_is_sent_in_a_transaction_is_there_and_told_when_it_has_committed(world, within):
    with within(world.engine) as handle:
        handle.execute(insert(Article).values(id=1))
        for number in (1, 2):
            world.send(number, handle)
        assert world.told == []
        if world.kind != "sqlite":
            assert world.kept() == []
    assert world.told == [1, 2]
    assert world.kept() == [1, 2]
    assert world.articles() == [1]


@HANDLES
def test_what_is_sent_in_a_transaction_that_is_rolled_back_never_existed(world, within):
    with abandoned(), within(world.engine) as handle:
        handle.execute(insert(Article).values(id=1))
        world.send(1, handle)
        raise Abandoned
    assert (world.told, world.kept(), world.articles()) == ([], [], [])


@HANDLES
def test_a_statement_that_fails_takes_the_message_with_it(world, within):
    with pytest.raises(IntegrityError), within(world.engine) as handle:
        world.send(1, handle)
        handle.execute(insert(Article).values(id=1))
        handle.execute(insert(Article).values(id=1))
    assert (world.told, world.kept(), world.articles()) == ([], [], [])


# -- savepoints


def released(handle, send):
    send(1)
    with handle.begin_nested():
        send(2)
    send(3)
    return [1, 2, 3]


def rolled_back(handle, send):
    send(1)
    with abandoned(), handle.begin_nested():
        send(2)
        raise Abandoned
    send(3)
    return [1, 3]


def nothing_but_a_savepoint(handle, send):
    with handle.begin_nested():
        send(1)
    return [1]


def nothing_but_one_rolled_back(handle, send):
    with abandoned(), handle.begin_nested():
        send(1)
        raise Abandoned
    return []


def one_after_the_other(handle, send):
    for number in range(1, 7):
        with abandoned(), handle.begin_nested():
            send(number)
            if number % 2:
                raise Abandoned
    return [2, 4, 6]


def the_inner_one_rolled_back(handle, send):
    send(1)
    with handle.begin_nested():
        send(2)
        with abandoned(), handle.begin_nested():
            send(3)
            raise Abandoned
        send(4)
    return [1, 2, 4]


def the_outer_one_rolled_back_after_the_inner_was_released(handle, send):
    send(1)
    with abandoned(), handle.begin_nested():
        send(2)
        with handle.begin_nested():
            send(3)
        send(4)
        raise Abandoned
    send(5)
    return [1, 5]


def three_deep_and_the_middle_one_rolled_back(handle, send):
    with handle.begin_nested():
        send(1)
        with abandoned(), handle.begin_nested():
            send(2)
            with handle.begin_nested():
                send(3)
            raise Abandoned
        send(4)
    return [1, 4]


def by_hand(handle, send):
    first = handle.begin_nested()
    send(1)
    first.rollback()
    second = handle.begin_nested()
    send(2)
    second.commit()
    send(3)
    return [2, 3]


def begun_before_anything_was_sent(handle, send):
    outer = handle.begin_nested()
    inner = handle.begin_nested()
    send(1)
    inner.commit()
    send(2)
    outer.rollback()
    send(3)
    return [3]


SAVEPOINTS = pytest.mark.parametrize(
    "scenario",
    [
        released,
        rolled_back,
        nothing_but_a_savepoint,
        nothing_but_one_rolled_back,
        one_after_the_other,
        the_inner_one_rolled_back,
        the_outer_one_rolled_back_after_the_inner_was_released,
        three_deep_and_the_middle_one_rolled_back,
        by_hand,
        begun_before_anything_was_sent,
    ],
    ids=lambda f: f.__name__,
)


@HANDLES
@SAVEPOINTS
def test_a_savepoint_that_is_rolled_back_takes_its_messages_with_it(world, within, scenario):
    with within(world.engine) as handle:
        expected = scenario(handle, lambda number: world.send(number, handle))
    assert world.kept() == expected
    assert world.told == expected


@HANDLES
@SAVEPOINTS
def test_whatever_savepoints_did_a_rollback_is_a_rollback(world, within, scenario):
    with abandoned(), within(world.engine) as handle:
        scenario(handle, lambda number: world.send(number, handle))
        raise Abandoned
    assert (world.told, world.kept()) == ([], [])


def test_messages_and_flushes_go_together(world):
    with Session(world.engine) as session, session.begin():
        session.add(Article(id=1))
        world.send(1, session)
        session.flush()
        session.add(Article(id=2))
        with abandoned(), session.begin_nested():
            session.add(Article(id=3))
            world.send(3, session)
            session.flush()
            raise Abandoned
        world.send(2, session)
    assert world.articles() == world.kept() == world.told == [1, 2]


# -- lives of sessions and connections


def test_a_session_is_as_good_as_new_after_each_end(world):
    with Session(world.engine) as session:
        world.send(1, session)
        session.rollback()
        world.send(2, session)
        session.commit()
        world.send(3, session)
        session.rollback()
        session.commit()
        world.send(4, session)
        session.commit()
        world.send(5, session)
    assert world.kept() == world.told == [2, 4]


def test_a_connection_is_as_good_as_new_after_each_end(world):
    with world.engine.connect() as connection:
        world.send(1, connection)
        connection.rollback()
        world.send(2, connection)
        connection.commit()
        world.send(3, connection)
        connection.rollback()
        connection.commit()
        world.send(4, connection)
        connection.commit()
        world.send(5, connection)
    assert world.kept() == world.told == [2, 4]


@pytest.mark.parametrize("end", ["close", "reset", "remove"])
def test_what_was_not_committed_is_gone_when_a_session_ends(world, end):
    registry = scoped_session(sessionmaker(world.engine))
    world.send(1, registry)
    getattr(registry, end)()
    world.send(2, registry)
    registry.commit()
    registry.remove()
    assert world.kept() == world.told == [2]


def test_a_commit_that_fails_sends_nothing(world):
    if world.kind == "mariadb":
        pytest.skip("MariaDB has no constraints that wait for the commit")
    engine = create_engine(world.url)
    if world.kind == "sqlite":
        event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA foreign_keys = ON").close())
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE comments (id INTEGER PRIMARY KEY, article_id INTEGER"
                " REFERENCES articles (id) DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    wrong = text("INSERT INTO comments VALUES (1, 77)")
    elsewhere = Recorder()
    with Thorn(store="memory://", dispatcher="recorder", plugins=[elsewhere]) as other:
        for within in (a_session, a_scoped_session, a_connection):
            with pytest.raises(IntegrityError), within(engine) as handle:
                handle.execute(wrong)
                world.send(1, handle)
                other.send("a.b", {"number": 1}, within=handle)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE comments"))
        engine.dispose()
        assert (world.kept(), world.told) == ([], [])
        assert elsewhere.told == []
        assert other.messages_to_route() == []


def test_a_connection_that_commits_each_statement_keeps_the_message_at_once(world):
    engine = create_engine(world.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        world.send(1, connection)
        assert world.kept() == [1]
    engine.dispose()


# -- asyncio


@pytest.fixture
def async_world(world):
    if world.kind == "mariadb":
        pytest.skip("there is no asynchronous driver for MariaDB here")
    return world


def run(world, main):
    """Run a coroutine function with an asynchronous engine to the world's database."""

    async def whole():
        engine = asynchronous(world.url, create_async_engine)
        try:
            await main(engine)
        finally:
            await engine.dispose()

    asyncio.run(whole())


@pytest.mark.parametrize("kind", ["session", "scoped_session", "connection"])
def test_asynchronous_transactions_likewise(async_world, kind):
    world = async_world

    async def scenario(handle, number):
        await world.asend(number, handle)
        with abandoned():
            async with handle.begin_nested():
                await world.asend(number + 1, handle)
                raise Abandoned
        async with handle.begin_nested():
            await world.asend(number + 2, handle)

    async def main(engine):
        for number in (10, 20):
            with abandoned():
                if kind == "session":
                    async with AsyncSession(engine) as session, session.begin():
                        await scenario(session, number)
                        if number == 20:
                            raise Abandoned
                elif kind == "scoped_session":
                    registry = async_scoped_session(
                        async_sessionmaker(engine), scopefunc=asyncio.current_task
                    )
                    await scenario(registry, number)
                    await (registry.rollback() if number == 20 else registry.commit())
                    await registry.remove()
                else:
                    async with engine.begin() as connection:
                        await scenario(connection, number)
                        if number == 20:
                            raise Abandoned

    run(world, main)
    assert world.kept() == world.told == [10, 12]


def test_a_coroutine_is_told_to_await(async_world):
    world = async_world

    async def main(engine):
        async with AsyncSession(engine) as session:
            with pytest.raises(ConfigurationError, match=r"use: await event\.asend"):
                world.send(1, session)
        async with AsyncSession(engine) as session:
            await session.execute(select(Article.id))
            with pytest.raises(ConfigurationError, match=r"use: await event\.asend"):
                world.send(1, session)
        connection = engine.connect()
        with pytest.raises(ConfigurationError, match="isn't connected yet"):
            await world.asend(1, connection)
        async with engine.connect() as connection:
            with pytest.raises(ConfigurationError, match=r"use: await event\.asend"):
                world.send(1, connection)

    run(world, main)
    assert (world.kept(), world.told) == ([], [])


# -- two phases


def test_two_phases(world):
    if world.kind == "sqlite":
        pytest.skip("SQLite has no two-phase commit")
    if world.kind == "postgresql":
        with world.engine.connect() as connection:
            if connection.scalar(text("SHOW max_prepared_transactions")) == "0":
                pytest.skip("max_prepared_transactions is 0 on this server")
    with Session(world.engine, twophase=True) as session:
        world.send(1, session)
        session.prepare()
        assert world.told == []
        session.commit()
        world.send(2, session)
        session.prepare()
        session.rollback()
        world.send(3, session)
        session.commit()
    assert world.kept() == world.told == [1, 3]
    with world.engine.connect() as connection:
        transaction = connection.begin_twophase()
        world.send(4, connection)
        transaction.prepare()
        assert world.told == [1, 3]
        transaction.commit()
        transaction = connection.begin_twophase()
        world.send(5, connection)
        transaction.prepare()
        transaction.rollback()
    assert world.kept() == world.told == [1, 3, 4]


# -- which database


def test_a_session_of_several_databases_needs_to_know_where_the_tables_are(world, tmp_path):
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Article.metadata.create_all(other)
    with Session(binds={Article: other}) as session:
        session.add(Article(id=1))
        with pytest.raises(ConfigurationError, match=r"add the tables to its binds"):
            world.send(1, session)
    binds = {Article: other, world.app.store.tables.messages: world.engine}
    with Session(binds=binds) as session:
        with session.begin():
            session.add(Article(id=1))
            world.send(1, session)
        with abandoned(), session.begin():
            session.add(Article(id=2))
            world.send(2, session)
            raise Abandoned
        assert list(session.scalars(select(Article.id))) == [1]
    other.dispose()
    assert world.kept() == world.told == [1]


@HANDLES
def test_a_transaction_elsewhere_keeps_its_messages_after_the_commit(
    world, tmp_path, within, caplog
):
    other = with_savepoints(create_engine(f"sqlite:///{tmp_path / 'other.db'}"))
    with within(other) as handle:
        world.send(1, handle)
        with abandoned(), handle.begin_nested():
            world.send(2, handle)
            raise Abandoned
        assert world.kept() == []
    with abandoned(), within(other) as handle:
        world.send(3, handle)
        raise Abandoned
    other.dispose()
    assert world.kept() == world.told == [1]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "other.db to" in warnings[0].getMessage()
    assert "a crash in between loses them" in warnings[0].getMessage()
    assert len(warnings) == 1


def test_a_store_that_is_lost_when_a_transaction_elsewhere_has_committed_is_logged(
    tmp_path, caplog
):
    store = SqlStore(f"sqlite:///{tmp_path / 'gone' / 'thorn.db'}")
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    app = Thorn(store=store, dispatcher="outbox")
    with Session(other) as session, session.begin():
        app.send("a.b", {"number": 1}, within=session)
    app.close()
    other.dispose()
    assert "an after-commit callback failed" in caplog.text


@HANDLES
def test_a_memory_store_waits_for_the_commit(world, within):
    recorder = Recorder()
    with Thorn(store="memory://", dispatcher="recorder", plugins=[recorder]) as app:
        event = Event("article.written", app=app)
        with within(world.engine) as handle:
            event.send({"number": 1}, within=handle)
            with abandoned(), handle.begin_nested():
                event.send({"number": 2}, within=handle)
                raise Abandoned
            assert app.messages_to_route() == []
        with abandoned(), within(world.engine) as handle:
            event.send({"number": 3}, within=handle)
            raise Abandoned
        assert [m.payload["number"] for m in app.messages_to_route()] == [1]
        assert (recorder.told, recorder.missing) == ([1], [])


def test_the_same_file_named_differently_is_the_same_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with world_at("sqlite", "sqlite:///thorn.db") as world:
        engine = create_engine(f"sqlite:///{tmp_path}/thorn.db")
        with abandoned(), Session(engine) as session, session.begin():
            world.send(1, session)
            assert list(session.scalars(select(world.app.store.tables.messages.c.event))) == [
                "article.written"
            ]
            raise Abandoned
        engine.dispose()
        assert world.kept() == []


def test_a_handle_that_nobody_knows_is_refused(world):
    with pytest.raises(ConfigurationError, match="within"):
        world.send(1, object())
    with pytest.raises(ConfigurationError, match="within"):
        world.send(1, world.engine)


# -- idempotency


@HANDLES
def test_the_same_key_twice_in_a_transaction_sends_once(world, within):
    with within(world.engine) as handle:
        world.send(1, handle, idempotency_key="k")
        world.send(2, handle, idempotency_key="k")
    assert world.kept() == [1]


@HANDLES
def test_the_same_key_in_another_transaction_sends_once(world, within):
    with abandoned(), within(world.engine) as handle:
        world.send(1, handle, idempotency_key="k")
        raise Abandoned
    for number in (2, 3):
        with within(world.engine) as handle:
            world.send(number, handle, idempotency_key="k")
    assert world.kept() == [2]


@pytest.mark.parametrize("first_ends", ["commit", "rollback"])
def test_the_same_key_in_two_transactions_at_once_sends_once(world, first_ends):
    begun, ended = threading.Event(), []

    def second():
        with Session(world.engine) as session:
            begun.set()
            world.send(2, session, idempotency_key="k")
            ended.append("second")
            session.commit()

    with Session(world.engine) as session:
        world.send(1, session, idempotency_key="k")
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(10)
        # It can't have ended: it waits for this one.
        thread.join(0.2)
        assert ended == []
        getattr(session, first_ends)()
    thread.join(20)
    assert ended == ["second"]
    assert world.kept() == ([1] if first_ends == "commit" else [2])


# -- who is told


@HANDLES
@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_dispatchers_deliver_after_the_commit(world, within, dispatcher):
    with (
        LocalRecipient() as recipient,
        Thorn(store=world.url, dispatcher=dispatcher, settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url)
        with abandoned(), within(world.engine) as handle:
            app.send("a.b", {"number": 1}, within=handle)
            raise Abandoned
        with within(world.engine) as handle:
            receipt = app.send("a.b", {"number": 2}, within=handle)
            assert recipient.received == ()
        if dispatcher == "inline":
            assert receipt
        assert receipt.wait(10)
    assert [request.json["data"]["number"] for request in recipient.received] == [2]


def test_dispatchers_deliver_after_an_asynchronous_commit(async_world):
    world = async_world
    with (
        LocalRecipient() as recipient,
        Thorn(store=world.url, dispatcher="inline", settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url)
        receipts = []

        async def main(engine):
            async with AsyncSession(engine) as session, session.begin():
                receipts.append(await app.asend("a.b", {"number": 1}, within=session))
                assert recipient.received == ()

        run(world, main)
        assert receipts[0].wait(10)
        assert [request.json["data"]["number"] for request in recipient.received] == [1]


@pytest.mark.parametrize("within", [a_session, a_connection])
def test_an_embedded_store_delivers_inline_after_the_commit(within):
    with (
        LocalRecipient() as recipient,
        Thorn(store=SqlStore("sqlite://"), dispatcher="inline", settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url)
        with within(app.store.engine) as handle:
            receipt = app.send("a.b", {"number": 1}, within=handle)
            assert recipient.received == ()
        assert receipt.wait(10)


def test_a_callback_that_raises_is_logged_and_stops_nobody(world, caplog):
    class Failing(Recorder):
        def dispatch(self, messages):
            super().dispatch(messages)
            raise RuntimeError("not today")

    recorder = Failing()
    with Thorn(store=world.url, dispatcher="recorder", plugins=[recorder]) as app:
        for within in (a_session, a_connection):
            with within(world.engine) as handle:
                app.send("a.b", {"number": 1}, within=handle)
                app.send("a.b", {"number": 2}, within=handle)
    assert recorder.told == [1, 2, 1, 2]
    assert caplog.text.count("an after-commit callback failed") == 4


@HANDLES
@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("url", ["sqlite:///{}/first.db", "sqlite://"])
def test_the_first_send_to_an_own_sqlite_database_creates_the_tables(
    tmp_path, within, commits, url
):
    with Thorn(store=SqlStore(url.format(tmp_path)), dispatcher="outbox") as app:
        for number in range(2):
            with abandoned(), within(app.store.engine) as handle:
                app.send("a.b", number, within=handle)
                app.send("a.c", number, within=handle)
                if not commits:
                    raise Abandoned
        assert len(app.messages_to_route()) == (4 if commits else 0)
        assert app.store.version() is not None


# -- buffers, and hooks of the session


@HANDLES
def test_what_is_sent_in_a_transaction_does_not_wait_in_a_buffer(world, within):
    """The buffer may end after the transaction has, or in one that is rolled back."""
    with buffer_events():
        world.event.send({"number": 9})
        with within(world.engine) as handle:
            world.send(1, handle)
        with abandoned(), within(world.engine) as handle:
            world.send(2, handle)
            raise Abandoned
        assert world.kept() == world.told == [1]
    assert (world.kept(), world.told) == ([9, 1], [1, 9])


def test_a_hook_of_the_session_may_send_before_the_commit(world):
    with Session(world.engine) as session:

        @event.listens_for(session, "before_commit")
        def before(session):
            world.send(1, session)

        session.add(Article(id=1))
        session.commit()
    assert world.kept() == world.told == [1]


def test_a_hook_of_the_session_may_send_after_the_commit_but_not_within_it(world):
    with Session(world.engine) as session:
        failures = []

        @event.listens_for(session, "after_commit")
        def after(session):
            world.event.send({"number": 2})
            try:
                world.send(1, session)
            except ConfigurationError as error:
                failures.append(str(error))

        session.add(Article(id=1))
        session.commit()
    assert world.kept() == world.told == [2]
    assert "has ended" in failures[0]


# -- what it costs


@contextmanager
def counting(engine):
    """The statements that an engine executes inside the block, in this thread."""
    statements, here = [], threading.get_ident()

    def note(connection, cursor, statement, parameters, context, executemany):
        if threading.get_ident() == here:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def inserts(statements):
    return [s for s in statements if not s.startswith("BEGIN")]


def costs(statements, url):
    """How many statements there were for each message, which are nothing but INSERTs."""
    one = 1 if url.startswith("postgresql") else 2
    assert all(re.search("^INSERT|^WITH made AS .INSERT", statement) for statement in statements)
    return len(statements) / one


@HANDLES
def test_a_message_costs_its_inserts_and_nothing_else(world, within):
    with (
        counting(world.engine) as statements,
        counting(world.app.store.engine) as others,
        within(world.engine) as handle,
    ):
        for number in (1, 2):
            world.send(number, handle)
        assert costs(inserts(statements), world.url) == 2
        assert others == []
    assert world.kept() == [1, 2]


def test_an_asynchronous_message_costs_its_inserts_and_nothing_else(async_world):
    world = async_world

    async def main(engine):
        async with AsyncSession(engine) as session, session.begin():
            with counting(engine.sync_engine) as statements:
                await world.asend(1, session)
            assert costs(inserts(statements), world.url) == 1

    run(world, main)


# -- where it is written


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_session_that_has_joined_a_transaction_sends_when_that_commits(world, ends):
    with world.engine.connect() as connection:
        outer = connection.begin()
        with Session(bind=connection) as session:
            session.add(Article(id=1))
            world.send(1, session)
            session.commit()
        assert world.told == []
        getattr(outer, ends)()
    assert world.kept() == world.told == world.articles() == ([1] if ends == "commit" else [])


def test_a_session_that_has_joined_a_savepoint_goes_with_it(world):
    with world.engine.connect() as connection, connection.begin():
        with abandoned(), connection.begin_nested():
            with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                world.send(1, session)
                session.commit()
            raise Abandoned
        with Session(bind=connection) as session:
            world.send(2, session)
            session.commit()
        assert world.told == []
    assert world.kept() == world.told == [2]


def test_a_store_elsewhere_waits_for_the_transaction_that_a_session_has_joined(world):
    with Thorn(dispatcher="outbox") as app, world.engine.connect() as connection:
        outer = connection.begin()
        for number in (1, 2):
            with Session(bind=connection) as session:
                app.send("a.b", {"number": number}, within=session)
                session.commit()
            assert app.messages_to_route() == []
        outer.rollback()
        assert app.messages_to_route() == []


def test_a_session_of_another_schema_writes_where_the_store_reads(world):
    """A tenant's schema may even have tables of Thorn's."""
    options = {}
    if world.kind == "postgresql":
        with world.engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS tenant"))
        tables = define_tables(MetaData(), schema="tenant")
        tables.metadata.create_all(world.engine)
    else:
        options = {"schema_translate_map": {None: "tenant"}}
    with Session(world.engine.execution_options(**options)) as session:
        if world.kind == "postgresql":
            session.execute(text("SET LOCAL search_path TO tenant"))
        world.send(1, session)
        session.commit()
    assert world.kept() == world.told == [1]


# -- what goes wrong


@HANDLES
def test_what_does_not_fit_is_refused_before_it_gets_to_the_database(world, within):
    with within(world.engine) as handle:
        with pytest.raises(ConfigurationError, match=r"'xxx.* has 300 characters"):
            world.send(1, handle, sender="x" * 300)
        world.send(2, handle)
    assert world.kept() == world.told == [2]


def test_a_connection_that_is_lost_is_a_store_error(world):
    with Session(world.engine) as session:
        session.add(Article(id=1))
        session.flush()
        session.connection().invalidate()
        with pytest.raises(StoreError, match="can't be used"):
            world.send(1, session)
        session.rollback()
        world.send(2, session)
        session.commit()
    assert (world.kept(), world.told, world.articles()) == ([2], [2], [])


def test_a_session_that_has_to_be_rolled_back_is_a_store_error(world):
    with Session(world.engine) as session:
        session.add_all([Article(id=1), Article(id=1)])
        with pytest.raises(IntegrityError):
            session.flush()
        with pytest.raises(StoreError, match=r"can't be used.*rolled back"):
            world.send(1, session)
        session.rollback()
        world.send(2, session)
        session.commit()
    assert world.kept() == world.told == [2]
