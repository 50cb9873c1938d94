"""The operator's commands on a database: init-db, purge, replay, stats, the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import timedelta

import pytest
from sqlalchemy import MetaData, create_engine, inspect, text

from thorn_core import DeliveryQuery, DeliveryState, Settings, StoreError, Thorn
from thorn_core.cli.group import run
from thorn_core.stores import sql
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore, define_tables

COMMAND = [sys.executable, "-m", "thorn_core.cli"]
SHOP = """
    import os
    from thorn_core import Settings, Thorn

    app = Thorn(
        store=os.environ["SHOP_STORE"],
        dispatcher="outbox",
        settings=Settings(
            allowed_networks=["127.0.0.0/8"],
            allowed_ports=range(1, 65536),
            retry=False,
            grace_period=1,
        ),
    )
"""


def only(*kinds):
    """The same on other databases would show nothing more."""
    return pytest.mark.parametrize("place", kinds, indirect=True)


@pytest.fixture
def shop(tmp_path, monkeypatch, place):
    """A user's app on the database, as the command takes it."""
    name = f"shop_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SHOP))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SHOP_STORE", place.url)
    return ["--app", f"{name}:app"]


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


def open_app(place):
    store = SqlStore(place.url)
    store.create()
    settings = Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536), retry=False
    )
    return Thorn(store=store, dispatcher="outbox", settings=settings)


def check(place, **options):
    store = SqlStore(place.url, **options)
    store.check()
    store.close()


def table_names(url):
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def execute(url, *statements):
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


# -- init-db


def test_init_db_creates_the_tables_once(place, capfd):
    assert run(["init-db", "--store", place.url]) == 0
    assert capfd.readouterr().out.endswith(": created the tables, schema 0001\n")
    assert {"thorn_messages", "thorn_deliveries"} <= table_names(place.url)
    assert run(["init-db", "--store", place.url]) == 0
    assert capfd.readouterr().out.endswith(": already up to date, schema 0001\n")


def test_init_db_says_what_it_migrated(place, capfd, monkeypatch):
    """There is one revision only: what was there before is made up."""
    assert run(["init-db", "--store", place.url]) == 0
    create = sql.SqlStore.create
    monkeypatch.setattr(sql.SqlStore, "create", lambda self: create(self) and "0000")
    assert run(["init-db", "--store", place.url]) == 0
    assert "migrated 0000 → 0001" in capfd.readouterr().out


def test_init_db_takes_the_database_of_the_app(shop, place, capfd):
    assert run([*shop, "init-db"]) == 0
    assert "created the tables" in capfd.readouterr().out
    check(place)


@only("sqlite")
def test_init_db_takes_the_database_of_the_environment(place, capfd, monkeypatch):
    monkeypatch.setenv("THORN_STORE", place.url)
    assert run(["init-db"]) == 0
    assert "created the tables" in capfd.readouterr().out


@only("sqlite")
def test_an_app_that_is_named_comes_before_the_environment(shop, place, capfd, monkeypatch):
    monkeypatch.setenv("THORN_STORE", f"{place.url}.other")
    assert run([*shop, "init-db"]) == 0
    assert f"{place.url}: created" in capfd.readouterr().out


def test_what_init_db_prints_makes_the_tables(place, capfd):
    assert run(["init-db", "--store", place.url, "--sql"]) == 0
    printed = capfd.readouterr().out
    assert "CREATE TABLE" in printed
    assert table_names(place.url) == set()
    execute(place.url, *(part for part in printed.split(";\n") if part.strip()))
    check(place)
    assert run(["init-db", "--store", place.url]) == 0
    assert "already up to date" in capfd.readouterr().out


def test_several_may_run_init_db_at_once(place):
    runs = [
        subprocess.Popen(
            [*COMMAND, "init-db", "--store", place.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [(process.communicate(timeout=60), process.returncode) for process in runs]
    assert [code for _, code in told] == [0, 0], told
    check(place)


def test_init_db_leaves_tables_of_other_migrations_alone(place, capfd):
    metadata = MetaData()
    define_tables(metadata)
    engine = create_engine(place.url)
    metadata.create_all(engine)
    assert run(["init-db", "--store", place.url]) == 0
    assert "up to date by your own migrations" in capfd.readouterr().out
    metadata.tables["thorn_attempts"].drop(engine)
    engine.dispose()
    assert run(["init-db", "--store", place.url]) == 2
    err = capfd.readouterr().err
    assert "which Thorn did not create" in err
    assert "thorn_messages" in err


def test_init_db_knows_tables_of_a_newer_version(place, capfd):
    assert run(["init-db", "--store", place.url]) == 0
    execute(place.url, "UPDATE thorn_schema_version SET version_num = '9999'")
    assert run(["init-db", "--store", place.url]) == 2
    err = capfd.readouterr().err
    assert "9999" in err
    assert "use the version of Thorn that created them" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["init-db"], 2, "needs a database"),
        (["init-db", "--store", "nonsense://u:s3cret@h/x"], 2, "no store for 'nonsense'"),
        (["init-db", "--store", "u:s3cret@h/x"], 2, "no store for 'u'"),
        (["init-db", "--store", "postgresql+asyncpg://u:s3cret@h/x"], 2, "asynchronous"),
        (["init-db", "--store", "postgresql+psycopg://u:s3cret@127.0.0.1:1/x"], 1, "refused"),
        (["demo", "--store", "postgresql+psycopg://u:s3cret@127.0.0.1:1/x"], 1, "refused"),
        (["--app", "thorn_core:Thorn", "init-db"], 2, "has no tables to create"),
    ],
)
def test_a_mistake_is_told_without_the_password(arguments, code, message, capfd, monkeypatch):
    monkeypatch.delenv("THORN_STORE", raising=False)
    assert run(arguments) == code
    told = capfd.readouterr()
    assert message in told.err.replace("\n", " ")
    assert "s3cret" not in told.err + told.out
    assert "Traceback" not in told.err


# -- transactions


def test_a_store_opens_transactions_to_send_in(place):
    class Undone(Exception):
        pass

    with open_app(place) as app:
        with app.store.transaction() as transaction:
            kept = app.send("a.b", within=transaction)
        with pytest.raises(Undone), app.store.transaction() as transaction:
            lost = app.send("a.b", within=transaction)
            raise Undone
        assert app.message(kept.message.id) is not None
        assert app.message(lost.message.id) is None


def test_a_transaction_that_can_not_begin_is_a_store_error():
    store = SqlStore("postgresql+psycopg://u@127.0.0.1:1/x")
    with pytest.raises(StoreError), store.transaction():
        pass


# -- purge


def record(app, events, *, status=200):
    """Send these events and deliver them."""
    with LocalRecipient() as recipient:
        recipient.answer(status=status)
        subscription = app.subscribe("*", recipient.url)
        receipts = [app.send(event) for event in events]
        app.worker().drain()
        app.update_subscription(subscription.id, enabled=False)
    return [receipt.message.id for receipt in receipts]


def test_purge_removes_what_is_finished_with_its_attempts_and_messages(place, capfd, shop):
    with open_app(place) as app:
        unreached = [app.send("nobody.wants").message.id for _ in range(5)]
        app.worker().drain()
        ids = record(app, ["a.b"] * 5)
        app.subscribe("*", "http://127.0.0.1:9/")
        waiting = app.send("a.b").message.id
        app.messages_to_route()
        assert run([*shop, "purge", "--older-than", "0s", "--batch", "2", "--yes"]) == 0
        assert capfd.readouterr() == ("Deleted 5 deliveries.\n", "")
        assert [app.message(one) for one in (*ids, *unreached)] == [None] * 10
        assert app.message(waiting) is not None
        assert app.stats().attempts == 0


def test_purge_goes_by_event_state_subscription_and_time(place):
    with open_app(place) as app:
        record(app, ["a.b", "a.c", "d.c"])
        record(app, ["a.b"], status=500)
        after = app.clock()
        (failed,) = app.deliveries(state="failed")
        assert app.purge(until=after - timedelta(hours=1)) == 0
        assert app.purge(until=after, event="*.c", batch=1) == 2
        assert app.purge(until=after, subscription_id=failed.subscription_id) == 1
        assert [d.event for d in app.deliveries()] == ["a.b"]
        assert app.purge(until=after, state="failed") == 0
        assert app.purge(until=after, state=["delivered", "cancelled"]) == 1
        assert app.stats().messages == 0


def test_purge_keeps_a_message_while_it_has_deliveries(place):
    with open_app(place) as app, LocalRecipient() as recipient:
        one = app.subscribe("*", recipient.url)
        app.subscribe("*", recipient.url)
        message = app.send("a.b").message
        app.worker().drain()
        assert app.purge(until=app.clock(), subscription_id=one.id) == 1
        assert app.message(message.id) is not None
        assert app.purge(until=app.clock()) == 1
        assert app.message(message.id) is None


def test_purge_tells_how_far_it_is(place):
    told = []
    with open_app(place) as app:
        record(app, ["a.b"] * 5)
        assert app.purge(until=app.clock(), batch=2, progress=told.append) == 5
    assert told == [2, 4, 5]


# -- replay


def test_replay_takes_what_failed_of_a_subscription_since_a_time(place, capfd, shop, recipient):
    with open_app(place) as app:
        record(app, ["a.b", "c.d"], status=500)
        since = app.clock()
        record(app, ["a.b", "a.c", "c.d"], status=500)
        (subscription, *_) = {d.subscription_id for d in app.deliveries(since=since)}
        app.update_subscription(subscription, enabled=True, url=recipient.url)
        chosen = ["--subscription", subscription, "--since", since.isoformat()]
        assert run([*shop, "replay", *chosen, "--event", "a.*"]) == 0
        assert capfd.readouterr().out == "Replayed 2 deliveries.\n"
        app.worker().drain()
        assert sorted(r.headers["hook-event"] for r in recipient.received) == ["a.b", "a.c"]
        assert run([*shop, "replay", *chosen, "--until", "1d"]) == 1
        assert run([*shop, "replay", *chosen]) == 0
        assert capfd.readouterr().out.endswith("Replayed 1 delivery.\n")


def test_replay_sees_each_delivery_once_though_it_fails_again(place, monkeypatch):
    monkeypatch.setattr("thorn_core.paging.PAGE", 2)
    told = []
    with open_app(place) as app, LocalRecipient() as recipient:
        recipient.answer(status=500)
        app.subscribe("*", recipient.url)
        for _ in range(5):
            app.send("a.b")
        app.worker().drain()
        with app.dispatching_by(app.dispatcher("inline")):
            assert app.replay(state="failed", progress=told.append) == 5
        assert len(recipient.received) == 10
        assert app.store.count(DeliveryQuery(states=(DeliveryState.FAILED,))) == 5
    assert told == [2, 4, 5]


def test_replay_reads_no_messages_that_nobody_looks_at(place, monkeypatch):
    with open_app(place) as app:
        record(app, ["a.b"] * 3)
        monkeypatch.setattr(app.store, "message", None)
        assert app.replay(state="delivered") == 3


# -- stats


def test_stats_show_what_fails_and_waits(place, capfd, shop):
    with open_app(place) as app:
        record(app, ["a.b"] * 3)
        record(app, ["a.b"], status=500)
        app.send("a.b")
    assert run([*shop, "stats"]) == 0
    out = capfd.readouterr().out
    rows = {line[:18].strip(): line[18:].split() for line in out.splitlines()}
    assert rows["messages"] == ["5"]
    assert rows["not yet routed"] == ["1"]
    assert (rows["delivered"], rows["failed"]) == (["3"], ["1"])
    assert rows["longest wait"][1] == "s"
    assert rows["attempts in 1 h"][:1] == ["4"]
    assert rows["failed attempts"] == ["1", "25.0", "%"]
    assert "127.0.0.1" in out
    counts, _ = out.split("\n\n")
    assert max(map(len, counts.splitlines())) <= 80
    assert run([*shop, "stats", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["attempts"], told["failed_attempts"], told["unrouted"]) == (4, 1, 1)
    assert told["due_since"] is not None


@only("postgresql", "mariadb")
@pytest.mark.parametrize(
    "command", [["stats"], ["deliveries"], ["purge", "--older-than", "1d", "--yes"], ["worker"]]
)
def test_a_database_that_is_not_set_up_is_told_in_one_line(place, capfd, shop, command):
    assert run([*shop, *command]) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert "isn't initialised" in told.err
    assert "run: thorn init-db --store" in told.err


# -- the demo


@only("sqlite", "postgresql")
def test_the_demo_kills_a_worker_and_nothing_is_lost(place, capfd):
    assert run(["init-db", "--store", place.url]) == 0
    capfd.readouterr()
    assert run(["demo", "--store", place.url, "--json"]) == 0
    *rows, last = map(json.loads, capfd.readouterr().out.splitlines())
    assert len(rows) == 7
    checks = last["checks"]
    assert all(checks.values())
    assert "no rolled-back order arrived" in checks
    assert any(check.startswith("only orders in flight arrived twice") for check in checks)
    # What is there now would be delivered by its workers.
    assert run(["demo", "--store", place.url]) == 2
    assert "pass an empty --store" in capfd.readouterr().err
