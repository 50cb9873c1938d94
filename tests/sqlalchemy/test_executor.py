"""The executor on SQLAlchemy: every driver, and what a program's engine has of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from places import Place, make_place
from sqlalchemy import Insert, MetaData, Update, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from thorn_core import ConfigurationError, StoreError, StoreSetupError
from thorn_core.ports import Failure
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.schema import ATTEMPTS, MESSAGES, OUTBOX, TABLES
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import Wording
from thorn_core.testing.executor_contract import ExecutorContract
from thorn_sqlalchemy import engines
from thorn_sqlalchemy.connections import DriverConnection, numbered
from thorn_sqlalchemy.engines import pooled, shown
from thorn_sqlalchemy.executor import SqlAlchemyExecutor
from thorn_sqlalchemy.tables import define_tables
from thorn_sqlalchemy.unit_of_work import unit_of_work

DRIVERS = {
    "memory": ("memory", None),
    "sqlite": ("sqlite", None),
    "psycopg": ("postgresql", "postgresql+psycopg"),
    "psycopg2": ("postgresql", "postgresql+psycopg2"),
    "pg8000": ("postgresql", "postgresql+pg8000"),
    "pymysql": ("mariadb", "mysql+pymysql"),
    "mysqldb": ("mariadb", "mysql+mysqldb"),
}
MODULES = {"psycopg2": "psycopg2", "pg8000": "pg8000", "mysqldb": "MySQLdb"}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Iterator[dict[str, Place]]:
    with ExitStack() as stack:
        yield _Places(stack, tmp_path_factory)


class _Places(dict):
    def __init__(self, stack, factory):
        self._stack, self._factory = stack, factory

    def __missing__(self, kind):
        made = contextmanager(make_place)(kind, self._factory.mktemp(kind))
        self[kind] = self._stack.enter_context(made)
        return self[kind]


def url_of(places, driver):
    if driver in MODULES and importlib.util.find_spec(MODULES[driver]) is None:
        pytest.skip(f"{driver} isn't installed")
    kind, name = DRIVERS[driver]
    url = make_url(places[kind].url)
    return url if name is None else url.set(drivername=name)


class Store:
    """Statements on an executor, with Thorn's tables, empty."""

    def __init__(self, source, **options):
        self.executor = SqlAlchemyExecutor(source, **options)
        self.wording = Wording(self.executor.dialect, self.executor.placeholder, "thorn_", None)
        self.database = Database(self.executor, self.wording)
        self.run, self.read = self.database.run, self.database.read
        self.run(self._set_up)

    def _set_up(self, statements):
        statements.create(TABLES)
        for table in TABLES:
            statements.change(f"DELETE FROM ${table.name}")

    def count(self, table=OUTBOX):
        return self.read(lambda s: s.first(f"SELECT count(*) FROM ${table.name}"))[0]

    def borrowed(self, handle):
        connection = self.executor.borrow(unit_of_work(handle))
        return None if connection is None else Statements(connection, self.wording)


@contextmanager
def store_on(source, **options):
    store = Store(source, **options)
    try:
        yield store
    finally:
        store.executor.close()


@pytest.fixture(params=DRIVERS)
def store(request, places):
    with store_on(url_of(places, request.param)) as made:
        yield made


@pytest.fixture(params=["sqlite", "psycopg", "pymysql"])
def theirs(request, places):
    """A store on an engine of the program's, and the engine."""
    engine = create_engine(url_of(places, request.param))
    with store_on(engine) as made:
        yield made, engine
    engine.dispose()


def waiting(n, tries=0):
    return (n.to_bytes(16, "big"), n, tries, None, "token", None, 0)


# -- the contract


class DriverContract(ExecutorContract):
    """The contract on one driver."""

    driver: str

    @pytest.fixture(autouse=True)
    def _place(self, places):
        self.url, self.engines = url_of(places, self.driver), []
        yield
        for engine in self.engines:
            engine.dispose()

    def make_engine(self, **options):
        """An engine of the program's."""
        self.engines.append(create_engine(self.url, **options))
        return self.engines[-1]

    def make_executor(self):
        return SqlAlchemyExecutor(self.url)

    def prepared(self, sql):
        """An executor whose connections have run a statement."""
        executor = SqlAlchemyExecutor(self.url)
        event.listen(executor.engine, "connect", lambda c, _: c.cursor().execute(sql))
        return executor


class PostgresqlContract(DriverContract):
    def make_impatient(self):
        executor = self.make_executor()
        executor._writing = tuple(sql.replace("10000", "100") for sql in executor._writing)
        return executor

    def make_read_only(self):
        executor, admin = self.make_executor(), self.make_engine(isolation_level="AUTOCOMMIT")
        sql = f"ALTER DATABASE {self.url.database} SET default_transaction_read_only = "
        with admin.connect() as connection:
            connection.exec_driver_sql(f"{sql} on")
            with executor.reading():
                connection.exec_driver_sql(f"{sql} off")
        return executor


class TestPsycopg(PostgresqlContract):
    driver = "psycopg"


class TestPsycopg2(PostgresqlContract):
    driver = "psycopg2"


class TestPg8000(PostgresqlContract):
    driver = "pg8000"


class TestPsycopgOnTheProgramsEngine(PostgresqlContract):
    driver = "psycopg"

    def make_executor(self):
        return SqlAlchemyExecutor(self.make_engine(isolation_level="SERIALIZABLE"))


class MysqlContract(DriverContract):
    def make_impatient(self):
        return self.prepared("SET SESSION innodb_lock_wait_timeout = 1")

    def make_read_only(self):
        return self.prepared("SET SESSION TRANSACTION READ ONLY")

    def too_large(self):
        return bytes(self.make_executor().max_bytes)


class TestPymysql(MysqlContract):
    driver = "pymysql"


class TestMysqldb(MysqlContract):
    driver = "mysqldb"


class TestPymysqlOnTheProgramsEngine(MysqlContract):
    driver = "pymysql"

    def make_executor(self):
        return SqlAlchemyExecutor(self.make_engine())


class TestSqlite(DriverContract):
    driver = "sqlite"

    def make_executor(self):
        executor = SqlAlchemyExecutor(self.url)
        limit = sqlite3.SQLITE_LIMIT_LENGTH
        event.listen(executor.engine, "connect", lambda c, _: c.setlimit(limit, 1_000_000))
        return executor

    def make_impatient(self):
        return self.prepared("PRAGMA busy_timeout = 100")

    def make_read_only(self):
        return self.prepared("PRAGMA query_only = 1")

    def make_full(self):
        return self.prepared("PRAGMA max_page_count = 20")

    def too_large(self):
        return bytes(1_000_001)


class TestSqliteInMemory(TestSqlite):
    driver = "memory"

    def make_impatient(self):
        pytest.skip("another database")

    make_read_only = make_full = make_impatient


class TestSqliteOnTheProgramsEngine(DriverContract):
    driver = "sqlite"

    def make_executor(self):
        engine = self.make_engine()

        @event.listens_for(engine, "connect")
        def connected(connection, record):
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begins(connection):
            connection.exec_driver_sql("BEGIN")

        return SqlAlchemyExecutor(engine)


# -- statements


def test_asyncpg_numbers_its_parameters():
    assert numbered("SELECT %s, %s::text") == "SELECT $1, $2::text"
    assert numbered("SELECT 1") == "SELECT 1"


# -- transactions


class Abandoned(Exception):
    pass


LEVELS = {
    "postgresql": "SELECT current_setting('transaction_isolation')",
    "mysql": "SELECT @@tx_isolation",
}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize("level", [None, "SERIALIZABLE", "AUTOCOMMIT"])
def test_a_transaction_on_postgresql_is_read_committed_and_bounded(places, driver, level):
    url = url_of(places, driver)
    engine = create_engine(url) if level is None else create_engine(url, isolation_level=level)
    for source in (url, engine):
        with store_on(source) as store:
            for _ in range(8):  # psycopg prepares what comes often
                with store.executor.transaction() as connection:
                    ((found,),) = connection.execute(LEVELS["postgresql"])
                    ((lock,),) = connection.execute("SHOW lock_timeout")
                    ((statement,),) = connection.execute("SHOW statement_timeout")
                    assert (found, lock, statement) == ("read committed", "10s", "5min")
            with store.executor.reading() as connection:
                assert connection.execute("SHOW statement_timeout") == [("5min",)]
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "0"
    engine.dispose()


def test_a_transaction_on_a_program_s_mysql_engine_is_read_committed(places):
    engine = create_engine(url_of(places, "pymysql"), isolation_level="AUTOCOMMIT")
    with store_on(engine) as store, store_on(engine.url) as other:
        with suppress(Abandoned), store.executor.transaction() as connection:
            statements = Statements(connection, store.wording)
            assert statements.rows("SELECT count(*) FROM $outbox") == [(0,)]
            other.run(lambda s: s.insert(OUTBOX, [waiting(1)]))
            assert statements.rows("SELECT count(*) FROM $outbox") == [(1,)]
            statements.insert(OUTBOX, [waiting(2)])
            raise Abandoned
        assert store.count() == 1
    engine.dispose()


def test_a_lock_on_mysql_is_waited_for_a_bounded_time(places):
    with store_on(url_of(places, "pymysql")) as store, store.executor.transaction() as connection:
        assert connection.execute("SELECT @@innodb_lock_wait_timeout, @@max_statement_time") == [
            (10, 300)
        ]


def test_a_transaction_on_sqlite_writes_from_the_beginning(places):
    engine = create_engine(url_of(places, "sqlite"))

    @event.listens_for(engine, "begin")
    def begins(connection):
        connection.exec_driver_sql("BEGIN")

    for source in (engine.url, engine):
        with store_on(source) as store, store.executor.transaction():
            other = create_engine(engine.url, connect_args={"timeout": 0})
            with other.connect() as connection, pytest.raises(Exception, match="is locked"):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            other.dispose()
    engine.dispose()


# -- what goes wrong


def failure_of(store, work):
    """What the error means that some work ends with, and that the connection is none the worse."""
    with pytest.raises(Exception) as caught, store.executor.transaction() as connection:  # noqa: PT011
        work(Statements(connection, store.wording))
    store.count()
    return store.executor.classify(caught.value)


def test_what_cannot_be_stored(store):
    def keeping(*row):
        return failure_of(store, lambda s: s.insert(OUTBOX, [row]))

    id_ = bytes(16)
    assert keeping(id_, 2**70, 0, None, None, None, 0) is Failure.DATA
    assert keeping(id_, None, 0, None, "secret-word", None, 0) is Failure.DATA
    assert keeping(id_, 1, 0, None, "secret-word\ud800", None, 0) is Failure.DATA
    if store.executor.dialect != "sqlite":
        assert keeping(id_, 1, 0, None, "secret-word" * 10, None, 0) is Failure.DATA
    if store.executor.dialect == "postgresql":
        assert keeping(id_, 1, 0, None, "secret-word\0", None, 0) is Failure.DATA
        many = (id_, 1, 0, None, "secret-word" * 10, None, 0)
        assert failure_of(store, lambda s: s.insert_fast(OUTBOX, [many])) is Failure.DATA


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_a_statement_beyond_mysql_s_packet_is_refused_before_it_ends_the_connection(places, driver):
    with store_on(url_of(places, driver)) as store:
        most = store.executor.max_bytes

        def keep(data):
            return lambda s: s.insert(MESSAGES, [(bytes(16), "a.b", data, 1, *[None] * 4)])

        store.run(keep(b"\0" * (most // 2 - 1_000)))
        assert failure_of(store, keep(b"x" * (most // 2))) is Failure.TOO_LARGE
        with Session(create_engine(url_of(places, driver))) as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(Exception, match="max_allowed_packet"):
                keep(b"x" * most)(store.borrowed(session))
            assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_many_rows_are_no_statement_beyond_a_small_packet_of_mysql(places, driver, monkeypatch):
    """Responses of 8 KiB each, in a batch of attempts."""
    monkeypatch.setattr(DriverConnection, "_max_packet", lambda self: 1024 * 1024)
    rows = [(n.to_bytes(24, "big"), n, 1, 1, 500, 0, None, "{}", bytes(8192)) for n in range(512)]
    with store_on(url_of(places, driver)) as store:
        store.run(lambda s: s.insert(ATTEMPTS, rows[:256], ignoring=True))
        store.run(lambda s: s.insert_fast(ATTEMPTS, rows[256:]))
        assert store.count(ATTEMPTS) == len(rows)


# pg8000 can't close what is gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000", "pymysql", "mysqldb"])
def test_a_connection_that_is_gone(places, driver):
    ends = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mysql": ("SELECT connection_id()", "KILL {}"),
    }
    with store_on(url_of(places, driver)) as store:
        mine, end = ends[store.executor.dialect]

        def ended(statements):
            ((number,),) = statements.connection.execute(mine)
            with store.executor.transaction() as connection:
                connection.execute(end.format(number))
            statements.rows("SELECT 1")

        assert failure_of(store, ended) is Failure.LOST


def test_two_that_wait_for_each_other(places):
    with store_on(url_of(places, "psycopg")) as store:
        store.run(lambda s: s.insert(OUTBOX, [waiting(1)]))

        def wait(statements):
            with store.executor.transaction() as other:
                other.execute("SET LOCAL lock_timeout = 50")
                lock = "SELECT 1 FROM $outbox FOR UPDATE"
                statements.rows(lock)
                Statements(other, store.wording).rows(lock)

        assert failure_of(store, wait) is Failure.RETRY


def test_an_error_shows_no_row(store):
    row = (b"secret-word-1234", *waiting(1)[1:])
    store.run(lambda s: s.insert(OUTBOX, [row]))
    lacking = (*row[:1], None, 0, None, "secret-word", None, 0)
    for work in (Statements.insert, Statements.insert_fast):
        for wrong in (row, lacking):
            with pytest.raises(StoreError) as caught:
                store.run(lambda s, work=work, wrong=wrong: work(s, OUTBOX, [wrong]))
            error, said = caught.value, ""
            while error is not None:
                said += f"{error} {error!r} "
                error = error.__cause__ or error.__context__
            assert b"secret-word".hex() not in said
            assert "secret-word" not in said


def test_a_database_that_is_not_supported_is_refused_by_name(monkeypatch):
    with pytest.raises(ConfigurationError, match="mssql isn't supported; use PostgreSQL 13"):
        monkeypatch.setattr(engines, "_engine_of", lambda _: _Unsupported)
        SqlAlchemyExecutor("mssql+pyodbc://u@h/db")


class _Unsupported:
    url = make_url("mssql+pyodbc://u@h/db")

    class dialect:
        name = "mssql"


def test_a_version_that_is_too_old_is_refused_by_name(places):
    with store_on(url_of(places, "sqlite")) as store:
        store.executor.engine.dialect.server_version_info = (3, 8)
        store.executor._supported = False
        with pytest.raises(StoreSetupError, match=r"sqlite 3\.8, which isn't supported; use"):
            store.executor.transaction().__enter__()


def test_passwords_are_not_shown():
    url = "postgresql+psycopg://u:s3cret@h/db?sslpassword=s3cret&application_name=shop"
    assert "s3cret" not in shown(url)
    assert "application_name=shop" in shown(url)


# -- a caller's transaction


def test_a_caller_s_transaction_is_borrowed(theirs):
    store, engine = theirs
    other = create_engine(engine.url)
    for end, kept in (("rollback", 0), ("commit", 1)):
        with Session(other) as session:
            session.execute(text("SELECT 1"))
            store.borrowed(session).insert(OUTBOX, [waiting(1)])
            getattr(session, end)()
        assert store.count() == kept
    with other.connect() as connection, connection.begin() as transaction:
        store.borrowed(connection).insert(OUTBOX, [waiting(2)])
        transaction.rollback()
    assert store.count() == 1
    other.dispose()


def test_a_caller_s_other_database_is_not(theirs, tmp_path):
    store, _ = theirs
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with Session(other) as session, other.connect() as connection:
        assert store.borrowed(session) is None
        assert store.borrowed(connection) is None
    other.dispose()


def test_a_pooler_s_url_may_be_declared_to_be_the_same_database(places):
    url = url_of(places, "psycopg")
    pooler = url.set(host="pooler.example", port=6432)
    engine = create_engine(pooler)
    with store_on(url) as store:
        assert not store.executor.same_as(engine)
    with store_on(url, aliases=[pooler.render_as_string(hide_password=False)]) as store:
        assert store.executor.same_as(engine)


def test_a_caller_s_options_are_not_inherited(theirs):
    store, engine = theirs
    options = {
        "schema_translate_map": {None: "elsewhere"},
        "stream_results": True,
        "yield_per": 1,
        "max_row_buffer": 1,
    }
    with engine.execution_options(**options).connect() as connection, connection.begin():
        statements = store.borrowed(connection)
        statements.insert(OUTBOX, [waiting(n) for n in range(3)])
        assert len(statements.rows("SELECT * FROM $outbox")) == 3
        assert statements.change("DELETE FROM $outbox WHERE route_at > 0") == 2
    assert store.count() == 1


@pytest.mark.parametrize("leading", [(Insert, Update), (Update,)], ids=["all", "documented"])
def test_a_session_with_replicas_writes_to_the_leader(theirs, tmp_path, leading):
    store, leader = theirs
    follower = create_engine(f"sqlite:///{tmp_path / 'follower.db'}")

    class Routing(Session):
        def get_bind(self, mapper=None, clause=None, **_):
            return leader if self._flushing or isinstance(clause, leading) else follower

    with Routing() as session:
        store.borrowed(session).insert(OUTBOX, [waiting(1)])
        session.commit()
    assert store.count() == 1
    follower.dispose()


def test_a_session_with_several_databases_is_asked_for_thorn_s_table(theirs, tmp_path):
    _, engine = theirs
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    tables = define_tables(MetaData())
    with store_on(engine, table=tables.messages) as store:
        with Session(binds={tables.messages: engine}) as session:
            assert store.borrowed(session) is not None
        with Session(other, binds={tables.messages: engine}) as session:
            assert store.borrowed(session) is not None
        with Session() as session, pytest.raises(ConfigurationError, match="which database has"):
            store.borrowed(session)
    other.dispose()


ASYNCHRONOUS = {
    "sqlite": ("sqlite", "sqlite+aiosqlite"),
    "psycopg": ("postgresql", "postgresql+psycopg"),
    "asyncpg": ("postgresql", "postgresql+asyncpg"),
}


@pytest.mark.parametrize("driver", ASYNCHRONOUS)
def test_an_asynchronous_session_is_borrowed(places, driver):
    kind, name = ASYNCHRONOUS[driver]
    if driver == "asyncpg":
        pytest.importorskip("asyncpg")
    url = make_url(places[kind].url)

    async def work(store, end):
        engine = create_async_engine(url.set(drivername=name))
        async with AsyncSession(engine) as session:
            unit = unit_of_work(session)

            def write():
                statements = store.borrowed(session)
                statements.insert(OUTBOX, [waiting(1), waiting(2)])
                assert statements.rows("SELECT message_id FROM $outbox WHERE tries = :n.small", n=0)
                given = (OUTBOX.column("message_id"), OUTBOX.column("tries"))
                statements.update(OUTBOX, given, [(waiting(1)[0], 5)], "tries = v.tries")
                assert statements.change("DELETE FROM $outbox WHERE route_at = :n.big", n=2) == 1

            await unit.run(write)
            await getattr(session, end)()
        await engine.dispose()

    with store_on(url) as store:
        with pytest.raises(ConfigurationError, match="asynchronous; use: await"):
            store.borrowed(AsyncSession(create_async_engine(url.set(drivername=name))))
        for end, kept in (("rollback", 0), ("commit", 1)):
            asyncio.run(work(store, end))
            assert store.count() == kept


# -- notifications, poolers


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgresql_is_listened_to(places, driver):
    with store_on(url_of(places, driver)) as store:
        with store.executor.listening("thorn_work") as listening:
            assert not pooled(listening)
            store.run(lambda s: s.rows("SELECT pg_notify(:name.text, '')", name="thorn_work"))
            if driver == "psycopg":
                assert [n.channel for n in listening.notifies(timeout=10, stop_after=1)]
            else:
                while not listening.notifies:
                    listening.poll()
        assert store.executor.engine.pool.checkedout() == 0


def listens(port):
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pooler_of(url, path):
    """PgBouncer in transaction mode in front of PostgreSQL, with two connections."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        pytest.skip("pgbouncer isn't installed")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    path.chmod(0o755)
    (path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={url.port or 5432} user={url.username}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
        "auth_type=any\npool_mode=transaction\ndefault_pool_size=2\n"
    )
    # It refuses to run as root.
    user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    command = [binary, path / "pgbouncer.ini"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet, **user)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield url.set(host="127.0.0.1", port=port)
    finally:
        process.terminate()
        process.wait()


def test_a_pooler_s_connections_are_nobody_s(places):
    """A statement that was prepared on one would be missing on the next, or be another one."""
    url, errors = url_of(places, "psycopg"), []

    def work(store, thread):
        try:
            for n in range(20):
                row = waiting(100 * thread + n)
                store.run(lambda s, row=row: s.insert(OUTBOX, [row]))
                store.count()
        except StoreError as error:
            errors.append(error)

    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(store_on(stack.enter_context(pooler_of(url, path))))
        threads = [threading.Thread(target=work, args=[store, n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert store.count() == 80
        with pytest.raises(StoreSetupError, match="is a pooler's"):
            store.executor.listening("thorn_work").__enter__()


@pytest.mark.parametrize("driver", ["pg8000", "pymysql", "sqlite"])
def test_others_are_polled(places, driver):
    with store_on(url_of(places, driver)) as store:
        assert store.executor.listening("thorn_work") is None


def test_tables_are_the_same_by_sqlalchemy_and_by_the_core(places):
    """Made from one description; a program may create them by its own migrations."""
    for driver in ("sqlite", "psycopg", "pymysql"):
        url = url_of(places, driver)
        with store_on(url) as store:
            mine, theirs = _described(store), None
            store.run(lambda s: [s.change(f"DROP TABLE ${t.name}") for t in TABLES])
            metadata = MetaData()
            define_tables(metadata)
            metadata.create_all(store.executor.engine)
            theirs = _described(store)
        assert theirs == mine


def _described(store):
    columns = (
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef, attcollation"
        " FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0"
    )
    indexes = (
        'SELECT l.name, l."unique", l.origin, i.seqno, i.name'
        " FROM pragma_index_list('{}') l, pragma_index_info(l.name) i"
    )
    questions = {
        "sqlite": ["PRAGMA table_list({})", "PRAGMA table_info({})", indexes],
        "mysql": ["SHOW CREATE TABLE {}"],
        "postgresql": [
            columns,
            "SELECT indexdef FROM pg_indexes WHERE tablename = '{}' ORDER BY 1",
            "SELECT reloptions FROM pg_class WHERE relname = '{}'",
        ],
    }
    found = {}
    with store.executor.reading() as connection:
        for table in TABLES:
            asked = [q.format(f"thorn_{table.name}") for q in questions[store.executor.dialect]]
            rows = [[repr(row).lower() for row in connection.execute(q)] for q in asked]
            # One row of MySQL's is a whole CREATE TABLE.
            found[table.name] = [
                sorted(part.strip(" ,") for row in some for part in row.split("\\n"))
                for some in rows
            ]
    return found
