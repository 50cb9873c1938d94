"""Databases that aren't as they should be: what is said, and what is not lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from gate import Gate
from places import make_place
from sqlalchemy import create_engine, delete, make_url, text
from sqlalchemy.event import listen
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from thorn_core import (
    ConfigurationError,
    DeliveryState,
    RetryPolicy,
    Settings,
    StoreError,
    StoreSetupError,
    Thorn,
)
from thorn_core.stores.sql import database
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore, engines

SETTINGS = Settings(
    allowed_networks=["127.0.0.0/8"],
    allowed_ports=range(1, 65536),
    retry_policy=RetryPolicy((0.05,) * 20, jitter=0),
    poll_interval=0.05,
    event_timeout=1,
    lease=3,
)


def app_on(source, **options):
    """An app on a store, or on SQLAlchemy's of a URL or an Engine."""
    store = source if isinstance(source, SqlStore) else SqlStore(source)
    return Thorn(store=store, dispatcher="outbox", settings=SETTINGS, **options)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def initialised(request, tmp_path_factory):
    for place in make_place(request.param, tmp_path_factory.mktemp("database")):
        store = SqlStore(place.url)
        store.create()
        store.close()
        yield place


@pytest.fixture
def server(initialised):
    """A database on a server, initialised and empty."""
    store = SqlStore(initialised.url)
    with store.engine.begin() as connection:
        for table in store.tables.all():
            connection.execute(delete(table))
    store.close()
    return initialised


@contextlib.contextmanager
def working(app):
    """A worker at work on a thread."""
    worker = app.worker()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)


# -- not initialised, older, newer


MESSAGE, DELIVERY = "msg_" + 32 * "0", "dlv_" + 48 * "0"
CALLS = {
    "subscribe": lambda app: app.subscribe("*", "http://127.0.0.1/"),
    "unsubscribe": lambda app: app.unsubscribe("sub_1"),
    "subscription": lambda app: app.subscription("sub_1"),
    "subscriptions": lambda app: list(app.subscriptions()),
    "subscribers": lambda app: list(app.subscribers("a.b")),
    "rotate_secret": lambda app: app.rotate_secret("sub_1"),
    "send": lambda app: app.send("a.b"),
    "message": lambda app: app.message(MESSAGE),
    "delivery": lambda app: app.delivery(DELIVERY),
    "deliveries": lambda app: list(app.deliveries()),
    "attempts": lambda app: list(app.attempts(DELIVERY)),
    "replay": lambda app: app.replay(event="a.b"),
    "stats": lambda app: app.stats(),
    "drain": lambda app: app.worker().drain(),
}


@pytest.fixture(scope="module")
def empty_app(shared_place):
    place = shared_place
    # A SQLite file that is a user's engine's isn't created by itself either.
    engine = create_engine(place.url)
    with app_on(engine) as app:
        yield app
    engine.dispose()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_database_that_is_not_initialised_says_so(empty_app, call):
    with pytest.raises(StoreError) as caught:
        call(empty_app)
    assert "isn't initialised: it has none of Thorn's tables, such as thorn_messages; run: " in str(
        caught.value
    )
    assert "run: thorn init-db --store " in str(caught.value)


def test_sending_within_a_transaction_says_so_too(empty_app):
    with (
        Session(empty_app.store.engine) as session,
        pytest.raises(StoreError, match=r"isn't initialised.* run: thorn init-db"),
    ):
        empty_app.send("a.b", within=session)


def test_a_missing_database_is_named(initialised):
    url = make_url(initialised.url).set(database="thorn_nowhere")
    store = SqlStore(url.render_as_string(hide_password=False))
    for call in (store.create, store.check):
        with pytest.raises(StoreSetupError) as caught:
            call()
        assert str(caught.value).startswith(
            "the database 'thorn_nowhere' does not exist; create it, then run: thorn init-db"
        )
    store.close()


def test_a_refused_connection_says_to_check_host_and_port(initialised):
    url = make_url(initialised.url).set(port=1)
    store = SqlStore(url.render_as_string(hide_password=False))
    with pytest.raises(StoreError, match=r"can't be used: .*[^.?]; check host and port$"):
        store.check()
    store.close()


def test_checking_says_what_is_wrong(empty_app):
    with pytest.raises(StoreError, match=r"isn't initialised.* run: thorn init-db"):
        empty_app.store.check()


def test_the_way_out_names_the_prefix_and_the_schema(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'thorn.db'}")
    store = SqlStore(engine, prefix="hooks_")
    with pytest.raises(StoreError, match=r"hooks_messages.* run: thorn --app .* init-db"):
        store.check()
    engine.dispose()


def test_a_missing_column_is_named(place):
    store = SqlStore(place.url)
    store.create()
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE thorn_deliveries DROP COLUMN reason"))
    for call in (lambda: store.delivery(DELIVERY), store.check):
        with pytest.raises(
            StoreError, match=r"thorn_deliveries in .* has no column reason: it has an older"
        ):
            call()
    store.close()


def with_revision(store, revision):
    store.create()
    with store.engine.begin() as connection:
        connection.execute(
            text("UPDATE thorn_schema_version SET version_num = :r"), {"r": revision}
        )


def test_an_older_schema_is_named(place):
    store = SqlStore(place.url)
    with_revision(store, "0000")
    with pytest.raises(StoreError, match=r"older schema 0000; this version needs"):
        store.check()
    store.close()


def test_a_newer_schema_is_not_touched_and_serves_as_long_as_its_columns_do(place):
    # While programs are replaced one by one, the new schema is there before the last old one ends.
    store = SqlStore(place.url)
    with_revision(store, "9999")
    with pytest.raises(StoreError, match=r"9999.*use the version of Thorn that created them"):
        store.create()
    store.check()
    assert store.message(MESSAGE) is None
    assert store.version() == "9999"
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE thorn_deliveries DROP COLUMN reason"))
    with pytest.raises(
        StoreError, match=r"have the newer schema 9999, without thorn_deliveries\.reason"
    ):
        store.check()
    store.close()


# -- read-only, full, locked, exhausted


def test_a_file_that_may_only_be_read_is_read(tmp_path):
    path = tmp_path / "thorn.db"
    with app_on(f"sqlite:///{path}") as app:
        subscription = app.subscribe("*", "http://127.0.0.1/")
        app.send("a.b")
    with app_on(f"sqlite:///file:{path}?mode=ro&uri=true") as app:
        assert app.subscription(subscription.id).id == subscription.id
        assert app.stats().subscriptions == 1
        with pytest.raises(StoreError, match=r"thorn\.db.* is read-only: "):
            app.send("a.b")
        with pytest.raises(StoreError, match=r"is read-only: "):
            app.worker().drain()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any file")
def test_a_file_without_write_permission_says_so(tmp_path):
    path = tmp_path / "thorn.db"
    with app_on(f"sqlite:///{path}") as app:
        app.subscribe("*", "http://127.0.0.1/")
    path.chmod(0o444)
    with app_on(f"sqlite:///{path}") as app, pytest.raises(StoreError, match="is read-only: "):
        app.send("a.b")


def test_a_server_that_may_only_be_read_says_so(server):
    if server.kind == "postgresql":
        url = make_url(server.url).update_query_dict(
            {"options": "-c default_transaction_read_only=on"}
        )
    else:
        url = make_url(server.url).update_query_dict(
            {"init_command": "SET SESSION TRANSACTION READ ONLY"}
        )
    with app_on(url.render_as_string(hide_password=False)) as app:
        assert app.stats().messages == 0
        with pytest.raises(StoreError, match=r"is read-only: "):
            app.send("a.b")
        with (
            pytest.raises(StoreError, match=r"is read-only: "),
            Session(app.store.engine) as session,
        ):
            app.send("a.b", within=session)


def test_a_full_database_fails_the_transaction_and_says_so(tmp_path):
    url = f"sqlite:///{tmp_path / 'thorn.db'}"
    with app_on(url) as app:
        app.store.create()
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE articles (id INTEGER PRIMARY KEY, body TEXT)"))
            pages = connection.scalar(text("PRAGMA page_count"))
        with Session(engine) as session:
            session.execute(text(f"PRAGMA max_page_count = {pages + 8}"))
            session.execute(text("INSERT INTO articles VALUES (1, 'short')"))
            with pytest.raises(StoreError, match=r"thorn\.db is full: "):
                app.send("a.b", "x" * 200_000, within=session)
            session.rollback()
            # It isn't full for everything: what follows goes on as ever.
            receipt = app.send("a.b", "short", within=session)
            session.commit()
            assert session.scalar(text("SELECT count(*) FROM articles")) == 0
        engine.dispose()
        assert [m.id for m in app.messages_to_route()] == [receipt.message.id]


def test_a_short_lock_is_waited_for(tmp_path):
    path = tmp_path / "thorn.db"
    with app_on(f"sqlite:///{path}") as app:
        app.store.create()
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
        timer.start()
        receipt = app.send("a.b")
        timer.join()
        other.close()
        assert app.message(receipt.message.id)


def test_a_lock_that_is_held_for_long_is_an_error_and_holds_nobody_up_for_ever(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(engines, "LOCK_TIMEOUT", 0.5)
    monkeypatch.setattr(database, "TRIED_FOR", 0.5)
    path = tmp_path / "thorn.db"
    with app_on(f"sqlite:///{path}") as app, LocalRecipient() as recipient:
        app.subscribe("*", recipient.url)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"thorn\.db can't be used: database is locked"):
            app.send("a.b", 1)
        assert 0.5 <= time.monotonic() - begun < 2
        assert app.stats().messages == 0
        with working(app):
            other.execute("COMMIT")
            other.close()
            app.send("a.b", 2)
            assert [r.json["data"] for r in recipient.wait_for(1)] == [2]


def test_connections_that_are_all_in_use_are_an_error(server):
    engine = create_engine(server.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with app_on(engine) as app, engine.connect():
        with pytest.raises(StoreError, match=r"every connection to .* is in use: "):
            app.send("a.b")
        with pytest.raises(StoreError, match=r"every connection to .* is in use: "):
            app.stats()
    engine.dispose()


# -- down


def test_a_worker_waits_quietly_for_a_database_that_is_down_at_the_start(server, caplog):
    caplog.set_level(logging.INFO)
    with (
        Gate(server.url, listening=False) as gate,
        LocalRecipient() as recipient,
        app_on(server.url) as app,
        app_on(gate.url) as behind,
    ):
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b", 1)
        with pytest.raises(StoreError, match=r"can't be used: .*"):
            behind.send("a.b", 2)
        with working(behind):
            until(lambda: "the store can't work" in caplog.text)
            gate.shut()
            gate.listen()
            time.sleep(2)
            tries = gate.tries
            gate.open()
            assert receipt.wait(20)
        assert tries < 40
        assert "the store works again" in caplog.text
        # Said in a line, without a stack of calls, ever less often.
        failures = [r for r in caplog.records if "the store can't work" in r.getMessage()]
        assert 0 < len(failures) < 12
        assert all(record.exc_info is None for record in failures)


def test_a_database_that_goes_away_in_the_middle_of_it_loses_nothing(server, caplog):
    with (
        Gate(server.url) as gate,
        LocalRecipient() as recipient,
        app_on(server.url) as app,
        app_on(gate.url) as behind,
    ):
        recipient.answer(delay=0.01)
        app.subscribe("*", recipient.url)
        for number in range(400):
            app.send("a.b", number)
        with working(behind):
            recipient.wait_for(100)
            gate.shut()
            before = gate.tries
            until(lambda: "the store can't" in caplog.text)
            tries = gate.tries - before
            gate.open()
            until(lambda: app.stats().deliveries[DeliveryState.DELIVERED] == 400)
        received = [request.json["data"] for request in recipient.received]
        assert sorted(set(received)) == list(range(400))
        assert len(received) == 400
        assert tries < 80


def test_connections_that_the_server_has_closed_are_replaced_unnoticed(server):
    with Gate(server.url) as gate:
        engine = create_engine(gate.url)
        for source in (gate.url, engine):
            with app_on(source) as app:
                ours = app.store.engine
                for connection in [ours.connect() for _ in range(4)]:
                    connection.close()
                gate.shut()
                gate.open()
                receipt = app.send("a.b")
                gate.shut()
                gate.open()
                assert app.message(receipt.message.id)
        engine.dispose()


# -- what is said


def test_a_password_is_never_said(server, caplog):
    caplog.set_level(logging.DEBUG)
    url = make_url(server.url).set(password="s3cret-word", host="127.0.0.1", port=1)
    for shown in (url, url.render_as_string(hide_password=False)):
        with app_on(SqlStore(shown)) as app:
            said = [repr(app), repr(app.store), repr(app.store.database)]
            for call in CALLS.values():
                with pytest.raises(StoreError) as caught:
                    call(app)
                error = caught.value
                while error is not None:
                    said.append(repr(error))
                    said.append(str(error))
                    error = error.__cause__ or error.__context__
            with working(app):
                until(lambda: "the store can't work" in caplog.text)
            assert "s3cret-word" not in "".join(said)
            assert "***" in said[1]
    assert "s3cret-word" not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://u:s3cret@h/db", r"postgresql"),
        ("nosql://u:s3cret@h/db", r"nosql"),
        ("postgresql+asyncpg://u:s3cret@h/db", r"is asynchronous; use a synchronous one"),
        ("sqlite+aiosqlite:///thorn.db", r"is asynchronous; use a synchronous one"),
        ("postgresql+nodriver://u:s3cret@h/db", r"nodriver"),
        (
            "postgresql+psycopg2cffi://u:s3cret@h/db",
            r"isn't installed .*write postgresql\+psycopg://",
        ),
        ("postgresql://u:s3cret@h:port/db", r"is not a database URL"),
        ("sqlite:/thorn.db", r"is not (a|the) .*URL"),
    ],
)
def test_a_url_that_is_none_is_told_without_its_password(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        Thorn(store=url, dispatcher="outbox")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        SqlStore(url)
    assert "s3cret" not in str(caught.value)


def test_secrets_and_payloads_are_not_in_errors(place):
    with app_on(place.url) as app:
        app.store.create()
        subscription = app.subscribe("*", "http://127.0.0.1/")
        with app.store.engine.begin() as connection:
            connection.execute(text("DROP TABLE thorn_patterns"))
            connection.execute(text("DROP TABLE thorn_messages"))
        for call in (
            lambda: app.send("a.b", "for their eyes only"),
            lambda: app.subscribe("*", "http://127.0.0.1/", secret=subscription.secret),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            said, error = [], caught.value
            while error is not None:
                said.append(str(error))
                error = error.__cause__ or error.__context__
            assert "whsec_" not in "".join(said)
            assert "eyes only" not in "".join(said)


# -- engines


def test_a_file_is_written_in_wal_mode_and_synchronously(tmp_path):
    with app_on(f"sqlite:///{tmp_path / 'thorn.db'}") as app:
        app.send("a.b")
        with app.store.transaction() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "busy_timeout")
            }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 10_000}


def test_a_users_engine_stays_as_it_is(server):
    engine = create_engine(server.url, isolation_level="SERIALIZABLE")
    with app_on(engine) as app:
        assert app.store.engine.pool is engine.pool
        app.send("a.b")
        app.worker().drain()
        levels = {"postgresql": "SHOW transaction_isolation", "mariadb": "SELECT @@tx_isolation"}
        with engine.connect() as connection:
            assert connection.scalar(text(levels[server.kind])).upper() == "SERIALIZABLE"
    # Closing the app doesn't close what isn't its own.
    assert engine.pool.checkedin() > 0
    engine.dispose()


def test_a_database_in_memory_is_one_for_all_threads(recwarn):
    with LocalRecipient() as recipient:
        store = SqlStore("sqlite://")
        with Thorn(store=store, dispatcher="background", settings=SETTINGS) as app:
            assert app.store.shared is False
            assert isinstance(app.store.engine.pool, QueuePool)
            app.subscribe("*", recipient.url)
            threads = [
                threading.Thread(target=lambda n=n: [app.send("a.b", n) for _ in range(5)])
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            recipient.wait_for(20)
        with app_on("sqlite://") as app:
            assert app.stats().subscriptions == 0
    assert list(recwarn) == []


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork while threads run
from thorn_core import Settings, Thorn
settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
url, recipient, dispatcher = sys.argv[1:]
app = Thorn(store=url, dispatcher=dispatcher, settings=settings)
app.subscribe("*", recipient)
assert app.send("a.parent").wait(10)
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            assert app.send("a.child", {"number": number}).wait(10)
        app.close()
        sys.exit(0)
    children.append(child)
for number in range(5):
    assert app.send("a.parent", {"number": number}).wait(10)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
assert app.send("a.parent").wait(10)
assert app.stats().messages == 22, app.stats()
app.close()
print("fine")
"""


def test_a_forked_child_has_connections_of_its_own(place):
    dispatcher = "background" if place.kind == "postgresql" else "inline"
    store = SqlStore(place.url)
    store.create()
    store.close()
    with LocalRecipient() as recipient:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FORK, place.url, recipient.url, dispatcher],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
        events = [request.headers["hook-event"] for request in recipient.received]
    assert (events.count("a.parent"), events.count("a.child")) == (7, 15)


def test_a_session_on_the_store_s_engine_commits_to_the_disk(tmp_path):
    """A worker's bookkeeping does without, but leaves no connection so."""
    store = SqlStore(f"sqlite:///{tmp_path / 'thorn.db'}")
    full = 2
    with LocalRecipient() as recipient, app_on(store) as app:
        app.subscribe("*", recipient.url)
        hasty = set()

        def see(connection, cursor, statement, *_):
            if statement == "COMMIT":
                driver = connection.connection.dbapi_connection
                hasty.add(driver.execute("PRAGMA synchronous").fetchone()[0])

        listen(store.engine, "before_cursor_execute", see)
        for number in range(5):
            app.send("a.b", number)
        app.worker().drain()
        assert hasty == {1, full}
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                session = stack.enter_context(Session(store.engine))
                assert session.execute(text("PRAGMA synchronous")).scalar() == full


def test_what_fails_at_the_commit_of_the_store_s_transaction_is_a_store_error(tmp_path):
    store = SqlStore(f"sqlite:///{tmp_path / 'thorn.db'}")
    listen(store.engine, "connect", lambda c, _: c.execute("PRAGMA foreign_keys = ON"))
    with app_on(store) as app:
        with store.transaction() as connection:
            connection.execute(text("CREATE TABLE a (id INTEGER PRIMARY KEY)"))
            connection.execute(
                text("CREATE TABLE b (a INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
            )
        with pytest.raises(StoreError, match="FOREIGN KEY"), store.transaction() as connection:
            connection.execute(text("INSERT INTO b VALUES (1)"))
            app.send("a.b", within=connection)
        assert app.stats().messages == 0
