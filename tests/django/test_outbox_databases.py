"""Databases that aren't as they should be: what is said, and what is not lost."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from django.db import OperationalError, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper
from magazine_project import DATABASES, SERVERS, administered, make_database

from thorn_core import (
    DeliveryState,
    RetryPolicy,
    Settings,
    StoreError,
    Thorn,
)
from thorn_core.testing import LocalRecipient

SETTINGS = Settings(
    allowed_networks=["127.0.0.0/8"],
    allowed_ports=range(1, 65536),
    retry_policy=RetryPolicy((0.05,) * 20, jitter=0),
    poll_interval=0.05,
    event_timeout=1,
    lease=3,
)


def store_at(alias, **options):
    from thorn_django.store import DjangoStore

    return DjangoStore(alias, **options)


def app_at(alias, settings=SETTINGS, dispatcher="outbox"):
    return Thorn(store=store_at(alias), dispatcher=dispatcher, settings=settings)


@contextmanager
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


# -- connections


@contextmanager
def sessions(alias):
    """A function that counts the connections to a database, and one that kills them."""
    name = DATABASES[alias]["NAME"]
    with administered(alias) as cursor:

        def ids():
            if alias == "postgresql":
                cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [name])
            else:
                cursor.execute(
                    "SELECT id FROM information_schema.processlist WHERE db = %s", [name]
                )
            return [row[0] for row in cursor.fetchall()]

        def kill():
            for id_ in ids():
                if alias == "postgresql":
                    cursor.execute("SELECT pg_terminate_backend(%s)", [id_])
                else:
                    with suppress(OperationalError):  # it has ended meanwhile
                        cursor.execute(f"KILL {id_}")

        yield ids, kill


def test_an_app_that_is_closed_leaves_no_connection_and_no_thread(server_alias):
    connections[server_alias].close()
    before = {thread.name for thread in threading.enumerate()}
    with sessions(server_alias) as (all_ids, _):
        # Threads of other tests may have kept theirs.
        others = set(all_ids())

        def ids():
            return set(all_ids()) - others

        with LocalRecipient() as recipient, app_at(server_alias) as app:
            app.subscribe("*", recipient.url)
            with working(app):
                for number in range(50):
                    app.send("a.b", number)
                recipient.wait_for(50)
                assert ids()
            for _ in range(3):
                app.worker().drain()
            # The engine's threads have gone with their workers; their connections are kept.
            assert len(ids()) <= 5
        until(lambda: not ids())
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if "notify" in name or "listen" in name]


def test_connections_that_the_server_has_closed_are_replaced_unnoticed(server_alias):
    with sessions(server_alias) as (ids, kill), app_at(server_alias) as app:
        first = app.send("a.b")
        assert ids()
        kill()
        assert app.message(first.message.id)
        kill()
        app.send("a.b")
        # That of the thread, as in a request.
        connections[server_alias].ensure_connection()
        kill()
        second = app.send("a.b")
        connections[server_alias].ensure_connection()
        kill()
        assert app.message(second.message.id)
        assert app.stats().messages == 3


def test_a_transaction_whose_connection_is_lost_is_lost_with_its_messages(server_alias):
    with sessions(server_alias) as (_, kill), app_at(server_alias) as app:
        with pytest.raises(StoreError), transaction.atomic(using=server_alias):
            app.send("a.b", 1)
            kill()
            app.send("a.b", 2)
        assert app.stats().messages == 0
        with transaction.atomic(using=server_alias):
            app.send("a.b", 3)
        assert app.stats().messages == 1


def test_a_worker_whose_connections_are_closed_all_the_time_loses_nothing(server_alias):
    with (
        sessions(server_alias) as (_, kill),
        LocalRecipient() as recipient,
        app_at(server_alias) as app,
    ):
        recipient.answer(delay=0.01)
        app.subscribe("*", recipient.url)
        with transaction.atomic(using=server_alias):
            for number in range(400):
                app.send("a.b", number)
        connections[server_alias].close()
        with working(app):
            for wanted in (40, 80, 120, 160, 200):
                recipient.wait_for(wanted)
                kill()
            until(lambda: app.stats().deliveries[DeliveryState.DELIVERED] == 400)
        received = [request.json["data"] for request in recipient.received]
        assert sorted(set(received)) == list(range(400))


@contextmanager
def unreachable(alias):
    """Nobody listens where the database is said to be."""
    settings = connections.settings[alias]
    port, settings["PORT"] = settings["PORT"], "1"
    try:
        yield
    finally:
        settings["PORT"] = port


def test_subscribers_named_by_a_function_may_ask_the_database(alias):
    """Also after that thread has lost its connection to the server."""
    from magazine.models import Tag

    Tag.objects.using(alias).create(name="hook")
    connections[alias].close()
    threads = []

    def asks(message):
        path = Tag.objects.using(alias).get().name
        threads.append(threading.current_thread().name)
        if alias in SERVERS:
            connections[alias].connection.close()
            connections[alias].errors_occurred = True
        return f"{recipient.url.rstrip('/')}/{path}"

    settings = SETTINGS.evolve(subscribers={"a.*": asks})
    with LocalRecipient() as recipient, app_at(alias, settings=settings) as app, working(app):
        for number in range(5):
            app.send("a.b", number)
            recipient.wait_for(number + 1)
    assert all(name.startswith("thorn-store") for name in threads)


def test_a_worker_waits_quietly_for_a_database_that_is_down(server_alias, caplog):
    caplog.set_level(logging.INFO)
    with LocalRecipient() as recipient, app_at(server_alias) as app, app_at(server_alias) as behind:
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b", 1)
        connections[server_alias].close()
        with ExitStack() as down:
            down.enter_context(unreachable(server_alias))
            with pytest.raises(
                StoreError, match=rf"database django://{server_alias} can't be used: "
            ):
                behind.send("a.b", 2)
            with working(behind):
                until(lambda: "the store can't work" in caplog.text)
                assert not recipient.received
                down.close()
                until(lambda: len(recipient.received) == 1)
        assert receipt.wait(10)
        assert "the store works again" in caplog.text
        assert all(record.exc_info is None for record in caplog.records)


def test_workers_of_other_processes_are_woken(postgresql_alias):
    slow = SETTINGS.evolve(poll_interval=60)
    with (
        LocalRecipient() as recipient,
        app_at(postgresql_alias, slow) as worker,
        app_at(postgresql_alias, slow) as sender,
    ):
        sender.subscribe("*", recipient.url)
        with working(worker):
            # It listens by the time that it has delivered: it asks when it has begun to listen.
            assert sender.send("a.b").wait(20)
            with transaction.atomic(using=postgresql_alias):
                receipt = sender.send("a.b")
            assert receipt.wait(20)


def test_a_worker_listens_again_after_its_connection_was_lost(postgresql_alias):
    slow = SETTINGS.evolve(poll_interval=60)
    with (
        sessions(postgresql_alias) as (_, kill),
        LocalRecipient() as recipient,
        app_at(postgresql_alias, slow) as worker,
        app_at(postgresql_alias, slow) as sender,
    ):
        sender.subscribe("*", recipient.url)
        with working(worker):
            assert sender.send("a.b").wait(20)
            kill()
            connections[postgresql_alias].close()

            def woken():
                return sender.send("a.b").wait(0.5)

            until(woken)


# -- SQLite


def test_a_transaction_of_the_stores_own_waits_for_another_writer(default_alias):
    connections[default_alias].ensure_connection()
    connections[default_alias].transaction_mode = None
    with app_at(default_alias) as app:
        entered, leave = threading.Event(), threading.Event()

        def write():
            with transaction.atomic(using=default_alias):
                entered.set()
                leave.wait(10)
                app.send("a.b", 1)
            connections[default_alias].close()

        writer = threading.Thread(target=write)
        writer.start()
        entered.wait(10)
        timer = threading.Timer(0.2, leave.set)
        timer.start()
        app.subscribe("*", "https://example.com/")
        writer.join(10)
        timer.join(10)
        assert (app.stats().messages, app.stats().subscriptions) == (1, 1)
        # The project's own choice stays.
        assert connections[default_alias].transaction_mode is None


def test_a_lock_that_is_held_for_long_is_an_error(default_alias, monkeypatch):
    monkeypatch.setattr("thorn_core.stores.sql.database.TRIED_FOR", 0.2)
    monkeypatch.setitem(connections.settings[default_alias]["OPTIONS"], "timeout", 0.2)
    connections[default_alias].close()
    with app_at(default_alias) as app:
        app.store.executor.own.lock_timeout = 0.2
        other = SqliteWrapper(connections.settings[default_alias], "other")
        with other.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="can't be used: database is locked"):
                app.send("a.b", 1)
            cursor.execute("ROLLBACK")
        other.close()
        app.send("a.b", 2)
        assert app.stats().messages == 1


def test_workers_bookkeeping_does_not_wait_for_the_disk_and_what_is_sent_does(default_alias):
    connections[default_alias].close()
    store = store_at(default_alias)
    levels = []

    def look(statements):
        levels.extend(statements.first("PRAGMA synchronous"))

    for durable in (True, False, True):
        store.database.run(look, durable=durable)
    assert levels == [2, 1, 2]
    connections[default_alias].ensure_connection()
    store.database.run(look, durable=False)
    assert levels[-1] == 2
    store.close()


@pytest.mark.usefixtures("_databases")
def test_a_database_in_memory_as_djangos_test_runner_makes_it():
    # It lasts while a connection to it is open.
    connections["memory"].ensure_connection()
    make_database("memory")
    for dispatcher in ("inline", "background"):
        with LocalRecipient() as recipient, app_at("memory", dispatcher=dispatcher) as app:
            app.subscribe("*", recipient.url)
            with transaction.atomic(using="memory"):
                receipt = app.send("a.b", 1)
            assert receipt.wait(10)
            for number in range(20):
                app.send("a.b", number)
            until(lambda: len(recipient.received) == 21)
            for subscription in list(app.subscriptions()):
                app.unsubscribe(subscription.id)


# -- what is said


def test_secrets_and_payloads_are_never_said(alias, caplog):
    caplog.set_level(logging.DEBUG)
    with app_at(alias) as app:
        subscription = app.subscribe("*", "https://example.com/")
        secret = subscription.secret
        from thorn_django.models import Subscription

        row = Subscription._base_manager.using(alias).get()
        said = [repr(row), str(row), repr(app), repr(app.store), repr(app.store.executor)]
        with connections[alias].cursor() as cursor:
            for table in ("thorn_subscriptions", "thorn_messages"):
                cursor.execute(f"ALTER TABLE {table} RENAME TO hidden_{table}")
        try:
            for call in (
                lambda: app.subscription(subscription.id),
                lambda: app.send("a.b", "for their eyes only"),
                lambda: app.subscribe("*", "https://example.com/", secret=secret),
            ):
                with pytest.raises(StoreError) as caught:
                    call()
                error = caught.value
                while error is not None:
                    said += [repr(error), str(error)]
                    error = error.__cause__ or error.__context__
        finally:
            with connections[alias].cursor() as cursor:
                for table in ("thorn_subscriptions", "thorn_messages"):
                    cursor.execute(f"ALTER TABLE hidden_{table} RENAME TO {table}")
    assert secret[:10] not in "".join(said)
    assert "eyes only" not in "".join(said)
    assert secret[:10] not in caplog.text


def test_a_value_that_does_not_fit_its_column_is_refused(alias):
    with app_at(alias) as app:
        from thorn_core import ConfigurationError

        with pytest.raises(ConfigurationError, match="which has 256 characters, is not the ID"):
            app.subscribe("*", "https://example.com/", owner="x" * 256)
        with pytest.raises(ConfigurationError, match="which has 256 characters, is not the ID"):
            app.send("a.b", sender="x" * 256)
        odd = app.subscribe("*", "https://example.com/", owner="Ä🏪" * 127)
        assert app.subscription(odd.id) == odd
        assert [s.id for s in app.subscriptions(owner=odd.owner)] == [odd.id]
        assert not list(app.subscriptions(owner=odd.owner.lower()))


# -- other processes

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork while threads run
sys.path.insert(0, sys.argv[1])
import magazine_project
alias, name, recipient, dispatcher = sys.argv[2:]
magazine_project.DATABASES[alias]["NAME"] = name
magazine_project.configure()
from django.db import connections
from thorn_core import Settings, Thorn
from thorn_django.store import DjangoStore
settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
app = Thorn(store=DjangoStore(alias), dispatcher=dispatcher, settings=settings)
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


@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_a_forked_child_has_connections_of_its_own(alias, dispatcher):
    if dispatcher == "background" and alias != "postgresql":
        pytest.skip("the same as on PostgreSQL, which has more threads")
    connections[alias].close()
    with LocalRecipient() as recipient:
        here = str(Path(__file__).parent)
        arguments = [here, alias, str(DATABASES[alias]["NAME"]), recipient.url, dispatcher]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FORK, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
        events = [request.headers["hook-event"] for request in recipient.received]
    assert (events.count("a.parent"), events.count("a.child")) == (7, 15)


def test_workers_of_sqlalchemy_work_on_the_same_tables(alias):
    pytest.importorskip("thorn_sqlalchemy")
    name = DATABASES[alias]["NAME"]
    if alias == "default":
        url = f"sqlite:///{name}"
    else:
        url = SERVERS[alias].rpartition("/")[0] + f"/{name}"
    with (
        LocalRecipient() as recipient,
        app_at(alias) as app,
        Thorn(store=url, dispatcher="outbox", settings=SETTINGS) as elsewhere,
    ):
        elsewhere.store.check()
        mine = app.subscribe("a.*", recipient.url, owner="1", headers={"X-A": "1"})
        assert elsewhere.subscription(mine.id) == mine
        theirs = elsewhere.subscribe("a.b", recipient.url, rate_limit=100)
        assert app.subscription(theirs.id) == theirs
        with transaction.atomic(using=alias):
            receipt = app.send("a.b", {"n": 1}, context={"k": [1, None]}, timeout=0.5)
        assert elsewhere.message(receipt.message.id) == receipt.message
        assert elsewhere.worker().drain() == 2
        assert receipt
        other = elsewhere.send("a.b")
        assert app.worker().drain() == 2
        assert other
        assert list(app.deliveries()) == list(elsewhere.deliveries())
        ids = [delivery.id for delivery in app.deliveries()]
        assert list(app.attempts(ids)) == list(elsewhere.attempts(ids))
