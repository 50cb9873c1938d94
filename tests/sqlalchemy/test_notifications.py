"""Workers are woken: across processes on PostgreSQL, by looking now and then elsewhere."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time

import pytest
from gate import Gate
from places import make_place
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from thorn_core import Settings, Thorn
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore

# Far more than anything here takes: what comes earlier has been woken.
LONG = 60.0
SOON = 10.0
SETTINGS = Settings(
    allowed_networks=["127.0.0.0/8"],
    allowed_ports=range(1, 65536),
    poll_interval=LONG,
    lease=120,
)
WORKER = """
import sys
from thorn_core import Settings, Thorn
url, interval = sys.argv[1:]
settings = Settings(
    allowed_networks=["127.0.0.0/8"],
    allowed_ports=range(1, 65536),
    poll_interval=float(interval),
)
with Thorn(store=url, dispatcher="outbox", settings=settings) as app:
    app.worker().run()
"""


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    yield from make_place("postgresql", tmp_path_factory.mktemp("database"))


@pytest.fixture
def store(postgresql):
    with emptied(postgresql.url) as store:
        yield store


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The URL of a database with a worker in another process."""
    for place in make_place("postgresql", tmp_path_factory.mktemp("served")):
        store = SqlStore(place.url)
        store.create()
        store.close()
        with worker_process(place.url):
            yield place.url


@pytest.fixture
def app(served):
    """An app without a worker; the one in the other process listens."""
    with (
        emptied(served) as store,
        Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app,
    ):
        until(lambda: listeners(store))
        yield app


@contextlib.contextmanager
def emptied(url):
    with contextlib.closing(SqlStore(url)) as store:
        store.create()
        with store.engine.begin() as connection:
            for table in store.tables.all():
                connection.execute(table.delete())
        yield store


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@contextlib.contextmanager
def worker_process(url, interval=LONG):
    """A worker in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, url, str(interval)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)


@contextlib.contextmanager
def worker_thread(app):
    worker = app.worker()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(30)


def listeners(store):
    """The server's processes that listen."""
    with store.engine.connect() as connection:
        found = connection.scalars(
            text(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
            )
        )
        return set(found)


def until(condition, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)
    return found


def arrive(recipient, number):
    """Wait for so many requests; they come soon."""
    return [request.json["data"] for request in recipient.wait_for(number, timeout=SOON)]


def test_a_worker_in_another_process_is_woken_at_once(app, recipient):
    app.subscribe("*", recipient.url)
    for number in range(1, 6):
        app.send("a.b", number)
        assert arrive(recipient, number)[-1] == number


def test_a_transaction_in_a_process_without_a_worker_wakes_it_too(app, recipient):
    engine = create_engine(app.store.engine.url)
    app.subscribe("*", recipient.url)
    for number in range(1, 4):
        with Session(engine) as session, session.begin():
            app.send("a.b", number, within=session)
        assert arrive(recipient, number)[-1] == number
    for number in range(4, 6):
        with engine.begin() as connection:
            app.send("a.b", number, within=connection)
        assert arrive(recipient, number)[-1] == number
    engine.dispose()


def test_what_is_to_be_delivered_again_wakes_it_too(app, recipient):
    app.subscribe("*", recipient.url)
    receipt = app.send("a.b", 1)
    assert receipt.wait(SOON)
    assert app.replay([delivery.id for delivery in receipt.deliveries]) == 1
    assert arrive(recipient, 2) == [1, 1]


def test_a_listener_whose_connection_ends_listens_again(app, recipient):
    app.subscribe("*", recipient.url)
    for number in range(1, 4):
        (listening,) = until(lambda: listeners(app.store))
        with app.store.engine.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:p)"), {"p": listening})
        until(lambda gone=listening: gone not in listeners(app.store))
        # Nobody hears this one; whoever comes back looks whether there was one.
        app.send("a.b", number)
        assert arrive(recipient, number)[-1] == number


def test_a_listener_outlives_a_server_that_is_away(store, recipient):
    with (
        Gate(store.engine.url.render_as_string(hide_password=False)) as gate,
        Thorn(store=gate.url, dispatcher="outbox", settings=SETTINGS) as behind,
        Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app,
    ):
        behind.subscribe("*", recipient.url)
        with worker_thread(behind):
            until(lambda: listeners(store))
            gate.shut()
            until(lambda: not listeners(store))
            tries = gate.tries
            time.sleep(1)
            assert gate.tries - tries < 5
            app.send("a.b", 1)
            gate.open()
            assert arrive(recipient, 1) == [1]


def threads():
    return {t.name for t in threading.enumerate() if t.name in ("thorn-notify", "thorn-listen")}


def test_closing_ends_the_threads_and_the_connection(store, recipient):
    app = Thorn(store=SqlStore(store.engine.url), dispatcher="background")
    app.send("a.b")
    until(lambda: listeners(store))
    assert threads() == {"thorn-notify", "thorn-listen"}
    app.close()
    assert threads() == set()
    until(lambda: not listeners(store))


def test_the_last_worker_that_stops_ends_the_listening(store):
    with Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app:
        with worker_thread(app):
            with worker_thread(app):
                until(lambda: listeners(store))
            assert len(listeners(store)) == 1
        until(lambda: not listeners(store))
        assert threads() == set()


def test_a_program_without_a_worker_does_not_listen(store):
    with Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app:
        app.send("a.b")
        assert "thorn-listen" not in threads()


def test_listening_takes_no_connection_from_the_pool(store, recipient):
    engine = create_engine(store.engine.url, pool_size=1, max_overflow=0, pool_timeout=SOON)
    with Thorn(store=engine, dispatcher="outbox", settings=SETTINGS) as app:
        app.subscribe("*", recipient.url)
        with worker_thread(app):
            until(lambda: listeners(store))
            app.send("a.b", 1)
            assert arrive(recipient, 1) == [1]
    engine.dispose()


def test_many_messages_are_few_notifications(store):
    notified = []

    def note(connection, cursor, statement, parameters, context, executemany):
        if "pg_notify" in statement:
            notified.append(time.monotonic())

    event.listen(store.engine, "before_cursor_execute", note)
    with Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app:
        begun = time.monotonic()
        for number in range(300):
            app.send("a.b", number)
        took = time.monotonic() - begun
    # Fifty a second at most; the last one isn't forgotten when the app closes.
    assert 1 <= len(notified) <= took / 0.02 + 2
    assert notified[-1] >= begun


def test_a_notification_that_fails_fails_nobody(store, recipient):
    with Gate(store.engine.url.render_as_string(hide_password=False)) as gate:
        engine = create_engine(gate.url)
        with (
            Thorn(store=engine, dispatcher="outbox", settings=SETTINGS) as app,
            Session(engine) as session,
        ):
            receipt = app.send("a.b", 1, within=session)
            session.commit()
            gate.shut()
        engine.dispose()
    with Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app:
        assert app.message(receipt.message.id)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_elsewhere_a_worker_looks_now_and_then(kind, tmp_path, recipient):
    for place in make_place(kind, tmp_path):
        store = SqlStore(place.url)
        store.create()
        with Thorn(store=store, dispatcher="outbox", settings=SETTINGS) as app:
            app.subscribe("*", recipient.url)
            with worker_process(place.url, interval=0.1):
                for number in range(1, 4):
                    app.send("a.b", number)
                    assert arrive(recipient, number)[-1] == number
            assert threads() == set()


def test_in_one_process_a_worker_is_woken_everywhere(any_place, recipient):
    store = SqlStore(any_place.url)
    store.create()
    with Thorn(store=store, dispatcher="background", settings=SETTINGS) as app:
        app.subscribe("*", recipient.url)
        for number in range(1, 4):
            if any_place.kind == "memory":
                app.send("a.b", number)
            else:
                with Session(store.engine) as session, session.begin():
                    app.send("a.b", number, within=session)
            assert arrive(recipient, number)[-1] == number
