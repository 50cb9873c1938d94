"""The tables: as they are created, as a user's own migrations create them, as versions had them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from places import make_place
from schemas.freeze import HEADERS, SECRET, schema_of, statements_of
from schemas.freeze import HERE as SCHEMAS
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event, inspect, text

from thorn_core import DeliveryState, Settings, StoreError, StoreSetupError, Thorn
from thorn_core.stores.sql import schema
from thorn_core.stores.sql.schema import VERSION
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore, define_tables
from thorn_sqlalchemy import migrations as migrations_module

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
TABLES = {table.name for table in schema.TABLES}


@pytest.fixture
def opened(place):
    """Opens stores on the test's database, and closes them."""
    stores = []

    def make(source=None, **options):
        stores.append(SqlStore(source or place.url, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def engine(place):
    engine = create_engine(place.url)
    yield engine
    engine.dispose()


def journey(store):
    """The simplest one: subscribed, sent, delivered."""
    with LocalRecipient() as recipient:
        with Thorn(store=store, dispatcher="inline", settings=LOCAL) as app:
            app.subscribe("article.*", recipient.url)
            assert app.send("article.created", {"n": 1})
        assert [request.json["data"] for request in recipient.received] == [{"n": 1}]


def described(engine: Engine) -> dict[str, list[tuple[str, ...]]]:
    """Every table in the database's own words, the version's aside."""
    questions = {
        "sqlite": "SELECT tbl_name, name, sql FROM sqlite_master WHERE sql IS NOT NULL",
        "postgresql": "SELECT table_name, column_name, concat_ws(' ', data_type,"
        " character_maximum_length, collation_name, is_nullable, column_default)"
        " FROM information_schema.columns WHERE table_schema = current_schema()"
        " UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes"
        " WHERE schemaname = current_schema()",
    }
    with engine.connect() as connection:
        if engine.dialect.name in questions:
            rows = connection.execute(text(questions[engine.dialect.name])).all()
        else:
            names = inspect(connection).get_table_names()
            told = [connection.execute(text(f"SHOW CREATE TABLE {name}")).one() for name in names]
            rows = [(name, "", line.strip(" ,")) for name, sql in told for line in sql.split("\n")]
    found: dict[str, list[tuple[str, ...]]] = {}
    for table, name, words in rows:
        if not table.endswith("schema_version"):
            words = re.sub(r"\s*([(),])\s*", r"\1", " ".join(words.split()).replace('"', ""))
            found.setdefault(table, []).append((name, words.lower()))
    return {table: sorted(items) for table, items in found.items()}


# -- our migrations


def test_the_tables_are_created_once(opened, engine):
    store = opened()
    store.create()
    before = described(engine)
    assert before.keys() == {f"thorn_{name}" for name in TABLES}
    store.create()
    opened().create()
    assert described(engine) == before
    assert store.version() == VERSION
    journey(store)


def test_creating_what_is_there_changes_nothing_and_locks_nothing(opened, engine):
    """A CREATE INDEX that finds its index waits for writers, and may meet one in a deadlock."""
    store = opened()
    store.create()
    seen = []
    event.listen(store.engine, "before_cursor_execute", lambda *a: seen.append(a[2].split()[0]))
    store.create()
    assert not {"CREATE", "ALTER", "DROP", "INSERT"} & set(seen), seen
    assert seen


@pytest.mark.parametrize("created", [0, 1, 5, len(TABLES), len(TABLES) + 1])
def test_a_creation_that_was_interrupted_is_completed(opened, engine, created):
    """MariaDB commits each table."""
    store, left = opened(), [created]

    def interrupt(connection, cursor, statement, *others):
        if statement.startswith(("CREATE TABLE", "INSERT")):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1

    event.listen(store.engine, "before_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.create()
    event.remove(store.engine, "before_cursor_execute", interrupt)
    assert len(inspect(engine).get_table_names()) == (created if engine.name == "mysql" else 0)
    opened().create()
    assert store.version() == VERSION
    store.check()
    journey(store)


def test_an_interrupted_creation_of_other_tables_is_left_alone(opened, engine):
    store = opened()
    store.create()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM thorn_schema_version"))
        connection.execute(text("ALTER TABLE thorn_queue DROP COLUMN tries"))
        connection.execute(text("DROP TABLE thorn_attempts"))
    with pytest.raises(StoreSetupError, match="or not completely"):
        store.create()
    assert "thorn_attempts" not in inspect(engine).get_table_names()


def test_the_migrations_make_what_is_defined(opened, engine):
    store = opened()
    store.create()
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "version_table": store.tables.version.name,
            },
        )
        assert compare_metadata(context, store.tables.metadata) == []


def test_the_migrations_make_word_for_word_what_the_metadata_makes(opened, engine):
    store = opened()
    store.create()
    migrated = described(engine)
    store.tables.metadata.drop_all(engine)
    store.tables.metadata.create_all(engine)
    assert described(engine) == migrated


def test_a_prefix_keeps_two_apart(opened, engine):
    stores = [opened(prefix="hooks_"), opened(prefix="other_")]
    for store in stores:
        store.create()
        journey(store)
    names = {f"{prefix}{name}" for prefix in ("hooks_", "other_") for name in TABLES}
    assert described(engine).keys() == names


def test_a_schema_keeps_two_apart(tmp_path):
    for place in make_place("postgresql", tmp_path):
        engine = create_engine(place.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA hooks"))
        for options in ({"schema": "hooks"}, {"schema": "hooks", "prefix": "other_"}, {}):
            store = SqlStore(place.url, **options)
            with pytest.raises(StoreSetupError, match="isn't initialised"):
                store.check()
            store.create()
            store.create()
            store.check()
            journey(store)
        names = inspect(engine).get_table_names(schema="hooks")
        assert {n for n in names if not n.endswith("version")} == {
            f"{prefix}{name}" for prefix in ("thorn_", "other_") for name in TABLES
        }
        engine.dispose()


def test_tables_that_were_left_half_made_are_told(opened, engine):
    store = opened(engine)
    store.tables.metadata.create_all(engine, tables=[store.tables.messages])
    with pytest.raises(StoreSetupError, match=r"has thorn_messages, .* not completely.*drop them"):
        store.create()
    store.tables.metadata.drop_all(engine)
    store.create()
    journey(store)


def test_several_may_create_at_once(opened, engine):
    together, errors = threading.Barrier(4), []

    def create(store):
        together.wait()
        try:
            store.create()
            store.check()
        except StoreError as error:
            errors.append(error)

    stores = [opened() for _ in range(4)]
    threads = [threading.Thread(target=create, args=(store,), daemon=True) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert described(engine).keys() == {f"thorn_{name}" for name in TABLES}
    journey(stores[0])


def test_there_is_one_way_and_it_is_up():
    script = ScriptDirectory(str(Path(migrations_module.__file__).parent))
    revisions = list(script.walk_revisions())
    assert revisions[0].revision == script.get_current_head() == VERSION
    assert [r.revision for r in reversed(revisions)] == sorted(r.revision for r in revisions)
    assert not any(hasattr(revision.module, "downgrade") for revision in revisions)
    assert not hasattr(migrations_module, "downgrade")


# -- a user's own


def users_own():
    """A user's metadata, with Thorn's tables in it."""
    metadata = MetaData()
    Table("articles", metadata, Column("id", Integer, primary_key=True))
    return metadata, define_tables(metadata, prefix="app_thorn_")


def test_a_users_metadata_may_create_the_tables(opened, engine):
    metadata, tables = users_own()
    metadata.create_all(engine)
    store = opened(tables=tables)
    store.check()
    journey(store)
    # Ours find that others have been here.
    again = opened(prefix="app_thorn_")
    again.create()
    assert again.version() is None
    assert "app_thorn_schema_version" not in inspect(engine).get_table_names()


def test_a_users_migrations_may_create_the_tables(opened, engine):
    metadata, tables = users_own()
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        made = produce_migrations(context, metadata)
        names = [operation.table_name for operation in made.upgrade_ops.ops if hasattr(
            operation, "columns")]  # fmt: skip
        assert sorted(names) == sorted(["articles", *(f"app_thorn_{name}" for name in TABLES)])
        # Written into a file of migrations, it is good Python.
        code = render_python_code(made.upgrade_ops)
        assert "app_thorn_deliveries" in code
        operations = Operations(context)
        for operation in made.upgrade_ops.ops:
            for each in getattr(operation, "ops", [operation]):
                operations.invoke(each)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    migrated = described(engine)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert described(engine) == migrated
    store = opened(tables=tables)
    store.check()
    journey(store)


def test_a_users_migrations_may_leave_ours_alone(opened, engine):
    """Who runs `thorn init-db` excludes our tables by their prefix, the version's included."""
    store = opened()
    store.create()
    metadata = MetaData()
    Table("articles", metadata, Column("id", Integer, primary_key=True))

    def included(name, kind, parents):
        return kind != "table" or not name.startswith("thorn_")

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": included})
        assert [change[0] for change in compare_metadata(context, metadata)] == ["add_table"]


# -- versions that were released


FROZEN = sorted(SCHEMAS.glob("*.sql"))
DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "mysql": "mariadb"}


def loaded(engine, path):
    connection = engine.raw_connection()
    cursor = connection.cursor()
    for statement in statements_of(path.read_text("utf-8")):
        cursor.execute(statement)
    connection.commit()
    cursor.close()
    connection.close()


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
def test_what_a_released_version_left_is_brought_up_and_goes_on(path, tmp_path):
    dialect, _, revision = path.stem.partition("-")
    for place in make_place(DIALECTS[dialect], tmp_path):
        engine = create_engine(place.url)
        loaded(engine, path)
        engine.dispose()
        store = SqlStore(place.url)
        assert store.create() == revision
        store.check()
        assert store.version() == VERSION
        with (
            LocalRecipient(secret=SECRET) as recipient,
            Thorn(store=store, dispatcher="outbox", settings=LOCAL) as app,
        ):
            (subscription,) = app.subscriptions(owner="42")
            assert (subscription.secret, subscription.headers) == (SECRET, HEADERS)
            delivered, failed = app.deliveries()
            assert delivered.state is DeliveryState.DELIVERED
            assert [attempt.status for attempt in app.attempts(delivered.id)] == [200]
            assert [attempt.status for attempt in app.attempts(failed.id)] == [500]
            app.update_subscription(subscription.id, url=recipient.url)
            app.send("article.sent_now", {"title": "fourth"}, sender="42")
            assert app.worker().drain() == 3
            assert all(request.verified for request in recipient.received)
            assert sorted(request.json["data"]["title"] for request in recipient.received) == [
                "fourth", "it's \\ 100 %", "third",
            ]  # fmt: skip
            assert {d.state for d in app.deliveries()} == {DeliveryState.DELIVERED}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_released_stays_as_it_was(dialect):
    """A change of the tables is a new revision, and its schema is frozen at its release."""
    path = SCHEMAS / f"{dialect}-{VERSION}.sql"
    assert path.exists(), "freeze the schema of the new revision: schemas/freeze.py"
    frozen = [s for s in statements_of(path.read_text("utf-8")) if "CREATE" in s]
    assert frozen == [s for s in schema_of(dialect) if "CREATE" in s]


def test_no_released_revision_is_without_its_schemas():
    revisions = {
        r.revision
        for r in ScriptDirectory(str(Path(migrations_module.__file__).parent)).walk_revisions()
    }
    assert {p.stem for p in FROZEN} == {f"{d}-{r}" for d in DIALECTS for r in revisions}
