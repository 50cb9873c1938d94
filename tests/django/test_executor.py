"""The executor on Django's databases keeps the contract, and what it does with Django's own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import OperationalError
from django.test.utils import CaptureQueriesContext
from scale import campaign

from thorn_core import StoreError
from thorn_core.ports.executor import Failure
from thorn_core.testing.executor_contract import CONTRACT, COUNT, ExecutorContract, row
from thorn_django.executor import DjangoExecutor
from thorn_django.unit_of_work import DjangoUnitOfWork


class DjangoContract(ExecutorContract):
    """The contract on one database, of which threads have no connection open."""

    alias: str

    @pytest.fixture(autouse=True)
    def _place(self, request, _databases):
        request.getfixturevalue(self.fixture)
        connections[self.alias].close()

    def make_executor(self):
        return DjangoExecutor(self.alias)

    def make_impatient(self):
        executor = self.make_executor()
        executor.own.lock_timeout = 0.2
        return executor

    def prepared(self, *statements):
        """An executor whose own connections have run statements."""
        executor = self.make_executor()
        opened = executor.own._opened

        def prepare(connection):
            opened(connection)
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

        executor.own._opened = prepare
        return executor


class TestSqlite(DjangoContract):
    alias, fixture = "default", "default_alias"

    def make_read_only(self):
        return self.prepared("PRAGMA query_only = 1")

    def make_full(self):
        # Rows of other tests leave free pages in this file.
        with connections[self.alias].cursor() as cursor:
            cursor.execute("VACUUM")
        # An open connection of this thread would be used, and has no limit.
        connections[self.alias].close()
        return self.prepared("PRAGMA max_page_count = 100")


class TestPostgresql(DjangoContract):
    alias, fixture = "postgresql", "postgresql_alias"

    def make_read_only(self):
        return self.prepared("SET default_transaction_read_only = on")


class TestMariadb(DjangoContract):
    alias, fixture = "mariadb", "mariadb_alias"

    def make_read_only(self):
        return self.prepared("SET SESSION TRANSACTION READ ONLY")

    def too_large(self):
        return bytes(DjangoExecutor(self.alias).max_bytes)


class ThreadsConnection(DjangoContract):
    """As in a request: the thread's connection is open, and the executor works on it."""

    # In one thread, a transaction inside of another is a savepoint of it.
    test_a_reader_sees_what_is_committed = None
    test_each_sees_what_the_others_have_committed = None
    test_a_lock_that_is_not_had_in_time_is_tried_again = None
    # What is prepared is a connection of the executor's own.
    test_a_read_only_database_is_read = None
    test_a_full_database_says_so = None

    @pytest.fixture(autouse=True)
    def _open(self, _place):
        connections[self.alias].ensure_connection()
        yield
        assert connections[self.alias].connection is not None


class TestSqliteOfTheThread(ThreadsConnection):
    alias, fixture = "default", "default_alias"


class TestPostgresqlOfTheThread(ThreadsConnection):
    alias, fixture = "postgresql", "postgresql_alias"


class TestMariadbOfTheThread(ThreadsConnection):
    alias, fixture = "mariadb", "mariadb_alias"


# -- Django's options


@contextmanager
def optional(alias, **options):
    """An executor while the database has these options."""
    settings = connections.settings[alias]
    before = settings["OPTIONS"]
    connections[alias].close()
    del connections[alias]
    settings["OPTIONS"] = {**before, **options}
    try:
        with closing(DjangoExecutor(alias)) as executor:
            yield executor
    finally:
        connections[alias].close()
        if options.get("pool"):
            connections[alias].close_pool()
        del connections[alias]
        settings["OPTIONS"] = before


class TestParametersOfTheServer(TestPostgresql):
    """PostgreSQL gets parameters apart from statements."""

    @pytest.fixture(autouse=True)
    def _option(self, _place):
        with optional(self.alias, server_side_binding=True):
            yield


@campaign
def test_the_contract_is_kept_on_psycopg2():
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2 isn't installed")
    program = (
        "import sys; sys.modules['psycopg'] = None; import pytest;"
        " sys.exit(pytest.main(sys.argv[1:]))"
    )
    tests = f"{__file__}::TestPostgresql"
    done = subprocess.run(
        [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", tests],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_connections_of_djangos_pool_go_back_to_it(postgresql_alias):
    pytest.importorskip("psycopg_pool")
    with optional(postgresql_alias, pool={"min_size": 1, "max_size": 1, "timeout": 1}) as executor:
        for _ in range(3):
            with transaction.atomic(using=postgresql_alias):
                connection = executor.borrow(DjangoUnitOfWork(postgresql_alias))
                assert connection.execute("SELECT 1") == [(1,)]
            connections[postgresql_alias].close()
            # One of its own isn't the pool's.
            with executor.transaction() as connection:
                assert connection.execute("SELECT 1") == [(1,)]


LEVELS = {
    "postgresql": ("serializable", "SHOW transaction_isolation", "read committed"),
    "mariadb": (
        "repeatable read",
        (
            "SELECT t.trx_isolation_level FROM information_schema.innodb_trx t"
            " WHERE t.trx_mysql_thread_id = connection_id()"
        ),
        "READ COMMITTED",
    ),
}


def told(connection, asked):
    """The answer, once there is one: MariaDB's list of transactions is a moment old."""
    deadline = time.monotonic() + 30
    while not (rows := connection.execute(asked)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return rows


@pytest.mark.parametrize("opened", [True, False])
def test_transactions_are_read_committed_whatever_the_projects_are(server_alias, opened):
    level, asked, wanted = LEVELS[server_alias]
    if server_alias == "postgresql":
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        level = IsolationLevel.SERIALIZABLE
    with optional(server_alias, isolation_level=level) as executor:
        if opened:
            connections[server_alias].ensure_connection()
        for _ in range(2):
            with executor.transaction() as connection:
                # On MariaDB it has an isolation level once it has begun.
                connection.execute("SELECT id FROM thorn_messages FOR UPDATE")
                assert told(connection, asked) == [(wanted,)]
        # The project's own stay as they were.
        with transaction.atomic(using=server_alias):
            connection = executor.borrow(DjangoUnitOfWork(server_alias))
            assert connection.execute("SELECT 1") == [(1,)]


def test_own_transactions_wait_for_a_bounded_time(postgresql_alias):
    with closing(DjangoExecutor(postgresql_alias)) as executor:
        connections[postgresql_alias].close()
        with executor.transaction() as connection:
            assert connection.execute("SHOW lock_timeout") == [("10s",)]
            assert connection.execute("SHOW statement_timeout") == [("5min",)]
        # Behind PgBouncer another program has the session next.
        with executor.reading() as connection:
            assert connection.execute("SHOW lock_timeout") == [("0",)]


# -- what Django sees


def test_django_sees_the_statements(alias):
    connection = connections[alias]
    connection.ensure_connection()
    seen = []

    def see(execute, sql, parameters, many, context):
        seen.append(sql)
        return execute(sql, parameters, many, context)

    with closing(DjangoExecutor(alias)) as executor, connection.execute_wrapper(see):
        with CaptureQueriesContext(connection) as captured, executor.transaction() as mine:
            mine.execute("SELECT 7")
        assert "SELECT 7" in seen
        assert "SELECT 7" in [query["sql"] for query in captured]


def test_rows_are_copied_on_psycopg_3_alone(alias):
    contract = DjangoContract()
    with closing(DjangoExecutor(alias)) as executor:
        database = contract.database(executor)
        database.run(lambda s: s.rows("DROP TABLE IF EXISTS $contract"))
        database.run(lambda s: s.create([CONTRACT]))
        connections[alias].ensure_connection()
        with CaptureQueriesContext(connections[alias]) as captured:
            database.run(lambda s: s.insert_fast(CONTRACT, [row(n) for n in range(200)]))
        copied = any(query["sql"].startswith("COPY ") for query in captured)
        assert copied is (executor.dialect == "postgresql")
        assert database.read(lambda s: s.rows(COUNT)) == [(200,)]


# -- transactions of the program's


def test_work_belongs_to_the_transaction_that_is_open(alias):
    contract = DjangoContract()
    with closing(DjangoExecutor(alias)) as executor:
        database = contract.database(executor)
        database.run(lambda s: s.rows("DROP TABLE IF EXISTS $contract"))
        database.run(lambda s: s.create([CONTRACT]))
        with transaction.atomic(using=alias):
            database.run(lambda s: s.insert(CONTRACT, [row(1)]))
            with pytest.raises(StoreError):
                database.run(lambda s: s.insert(CONTRACT, [row(2), row(1)]))
            assert database.read(lambda s: s.rows(COUNT)) == [(1,)]
            if executor.dialect != "sqlite":
                with executor.apart():
                    assert database.read(lambda s: s.rows(COUNT)) == [(0,)]
            transaction.set_rollback(True, using=alias)
        assert database.read(lambda s: s.rows(COUNT)) == [(0,)]


def test_what_only_the_program_can_try_again_is_not_tried_again(default_alias):
    with closing(DjangoExecutor(default_alias)) as executor:
        database = DjangoContract().database(executor)
        tried = []

        def conflict(statements):
            tried.append(1)
            raise OperationalError("database is locked") from locked()

        with pytest.raises(StoreError), transaction.atomic(using=default_alias):
            database.run(conflict)
        assert len(tried) == 1
        with pytest.raises(StoreError):
            database.run(conflict)
        assert len(tried) == 6


def locked():
    import sqlite3

    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def test_a_broken_transaction_is_the_programs(alias):
    with closing(DjangoExecutor(alias)) as executor:
        with pytest.raises(TransactionManagementError), transaction.atomic(using=alias):
            transaction.set_rollback(True, using=alias)
            DjangoContract().database(executor).read(lambda s: s.rows("SELECT 1"))
        assert executor.classify(TransactionManagementError("broken")) is None
        assert executor.classify(OperationalError("database is locked")) in (
            Failure.OTHER,
            Failure.LOST,
        )
