"""The database: its engine, transactions that are tried again, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    RootTransaction,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeout,
)

from thorn_core import ConfigurationError, StoreError, StoreSetupError
from thorn_core.stores import redact
from thorn_sqlalchemy.engines import OneConnection as OneConnection
from thorn_sqlalchemy.engines import in_memory as in_memory
from thorn_sqlalchemy.engines import shown as shown
from thorn_sqlalchemy.greenlets import off_loop
from thorn_sqlalchemy.quiet import quiet
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.setup import revision_of, set_up, wrong_with

T = TypeVar("T")

MYSQL = ("mysql", "mariadb")
# Of a transaction that met another's: deadlock, serialization failure, lock not had in time.
TRIES = 5
CONFLICTS = {"40001", "40P01", "55P03", 1020, 1205, 1213}
# Milliseconds that SQLite waits for another writer. After as long nothing is tried again: who holds
# a lock until then has stopped.
BUSY_TIMEOUT = 10_000
CONNECT_TIMEOUT = 5
LIBPQ = ("psycopg", "psycopg2")
MYSQL_DRIVERS = ("pymysql", "mysqldb")
# So that a network that swallows packets is noticed: in seconds, and of the last in milliseconds.
LIVENESS = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Seconds that a statement of MySQL's may take; a migration takes its time.
READ_TIMEOUT = 300


def engine_of(source: str | URL | Engine) -> Engine:
    """Make the engine of a database URL; an engine is taken as it is.

    A SQLite file is opened in WAL mode with a busy timeout and full synchronisation: what is
    committed outlives a power failure, and readers don't wait for the writer.

    Raises:
        ConfigurationError: The URL isn't one, its driver isn't installed or is asynchronous.
    """
    if not isinstance(source, str | URL):
        if not isinstance(source, Engine):
            raise ConfigurationError(
                f"store={source!r} can't be used from threads; use a database URL with a"
                f" synchronous driver (psycopg, pymysql, sqlite), or an Engine"
            )
        return source
    try:
        url = make_url(source)
        asynchronous = url.get_dialect().is_async
        if not asynchronous:
            return create_engine(url, **_engine_options(url))
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        said = str(error).replace(str(source), shown(source))
        raise ConfigurationError(
            f"store={shown(source)!r} is not a database URL: {said}; write"
            " sqlite:///thorn.db or postgresql+psycopg://user@host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver of {shown(source)} isn't installed ({error}); pip install"
            " 'thorn-sqlalchemy[postgresql]' or 'thorn-sqlalchemy[mysql]'"
        ) from error
    raise ConfigurationError(
        f"the driver of {shown(url)} is asynchronous; use a synchronous one, such as"
        " postgresql+psycopg, mysql+pymysql or sqlite"
    )


def _engine_options(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    # Payloads and secrets are among the parameters; errors are logged.
    options: dict[str, Any] = {"hide_parameters": True}
    if backend == "sqlite":
        options["connect_args"] = {"timeout": BUSY_TIMEOUT / 1000}
        if in_memory(url):
            # The database is its only connection, which one thread has at a time.
            options |= {"poolclass": OneConnection, "pool_size": 1, "max_overflow": 0}
            options["connect_args"]["check_same_thread"] = False
    elif backend == "postgresql":
        options["pool_recycle"] = 3600
        if url.get_driver_name() in LIBPQ:
            options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT, **LIVENESS}
    elif backend in MYSQL:
        options |= {"isolation_level": "READ COMMITTED", "pool_recycle": 3600}
        if url.get_driver_name() in MYSQL_DRIVERS:
            options["connect_args"] = {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": READ_TIMEOUT,
                "write_timeout": READ_TIMEOUT,
            }
    return options


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
    with contextlib.suppress(sqlite3.OperationalError):  # read-only, or in memory
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


class Database:
    """Where a store's tables are.

    Args:
        source: A URL, or an engine of the user's.
        tables: The tables.

    Raises:
        ConfigurationError: As `engine_of`.
    """

    def __init__(self, source: str | URL | Engine, tables: Tables) -> None:
        self.tables = tables
        engine = engine_of(source)
        self.owned = not isinstance(source, Engine)
        self.name = engine.dialect.name
        self._created = False
        self._turn = self._make_turn()
        self._same: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()
        if self.name == "sqlite" and self.owned:
            event.listen(engine, "connect", _prepare_sqlite)
        self.engine = quiet(engine)
        # Statements of one transaction must see what others have committed meanwhile.
        self._isolates = not self.owned and self.name != "sqlite"

    def __repr__(self) -> str:
        return f"<Database {shown(self.engine.url)}>"

    @property
    def embedded(self) -> bool:
        """True if it is only this process's: SQLite in memory."""
        return in_memory(self.engine.url)

    # -- work

    def run(self, work: Callable[[Connection], T], *, lasting: bool = True) -> T:
        """Do some work in a transaction of its own, again if it met another's or lost its way.

        Args:
            work: Gets the connection. It is called again after a deadlock, and once more if the
                connection is found to be broken.
            lasting: False for a worker's bookkeeping, which a power failure may take back: what was
                delivered is then delivered again. On SQLite it needn't wait for the disk.

        Raises:
            StoreError: The database can't do it.
        """
        until = time.monotonic() + BUSY_TIMEOUT / 1000
        for left in reversed(range(TRIES)):
            try:
                self._create_once()
                with (
                    self._turn,
                    self._connect() as connection,
                    self._hasty(connection, hasty=not lasting),
                    connection.begin(),
                ):
                    self._begin(connection)
                    return work(connection)
            except SQLAlchemyError as error:
                if left and _passing(error) and time.monotonic() < until:
                    time.sleep(random.uniform(0.001, 0.02) * (TRIES - left))  # noqa: S311
                    continue
                raise self.translated(error) from error
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do some reading; as `run`, but without a lock on a SQLite file.

        Raises:
            StoreError: The database can't do it.
        """
        for left in (True, False):
            try:
                self._create_once()
                with self._connect() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                if left and _disconnected(error):
                    continue
                raise self.translated(error) from error
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block, or rolls back if that raises.

        Raises:
            StoreError: The database can't begin or commit it.
        """
        with contextlib.ExitStack() as stack:
            with self.translating():
                self._create_once()
                connection = stack.enter_context(self._connect())
                transaction = stack.enter_context(connection.begin())
                self._begin(connection)
            yield connection
            with self.translating():
                if transaction.is_active:
                    _commit(connection, transaction)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            if self._isolates:
                self._isolate(connection)
            yield connection

    def _isolate(self, connection: Connection) -> None:
        driver = self.engine.dialect.loaded_dbapi
        try:
            connection.execution_options(isolation_level="READ COMMITTED")
        except driver.Error as error:
            # SQLAlchemy doesn't look at what the driver says here: that the connection is lost, and
            # so may be the others in the pool.
            lost = self.engine.dialect.is_disconnect(error, None, None)
            connection.invalidate(error)
            if lost:
                self.engine.dispose()
            raise DBAPIError(None, None, error, connection_invalidated=lost) from error

    @contextlib.contextmanager
    def _hasty(self, connection: Connection, *, hasty: bool) -> Iterator[None]:
        """Let SQLite commit inside of the block without waiting for the disk.

        Not beyond: the connection may be a user's Session's next.
        """
        if not hasty or self.name != "sqlite" or not self.owned or self.embedded:
            yield
            return
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            driver.execute("PRAGMA synchronous = FULL")

    def _begin(self, connection: Connection) -> None:
        if self.name != "sqlite" or _in_transaction(connection):
            return
        # SQLite refuses to make a reader a writer once somebody else has written, at once and
        # without waiting: so it is a writer from the beginning.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _make_turn(self) -> contextlib.AbstractContextManager[Any]:
        """SQLite lets one write; who waits for it looks again ever less often, so we queue here."""
        return threading.Lock() if self.name == "sqlite" else contextlib.nullcontext()

    def _create_once(self) -> None:
        """Create the tables of an own SQLite database that has none."""
        if self._created or not self.owned or self.name != "sqlite":
            return
        with self.engine.connect() as connection:
            there = inspect(connection).has_table(self.tables.messages.name)
        if not there:
            self.create()
        self._created = True

    def create_within(self, connection: Connection) -> None:
        """As every other call does: create the tables of an own SQLite database that has none.

        Args:
            connection: Of a transaction that writes there; if that is rolled back, so are they.
        """
        if self._created or not self.owned or self.name != "sqlite":
            return
        name = self.tables.messages.name
        if not self.embedded:
            self._created = off_loop(partial(self._has_table, name))
        if not self._created and not inspect(connection).has_table(name):
            self._begin(connection)
            set_up(connection, self.tables)

    def _has_table(self, name: str) -> bool:
        with self.engine.connect() as connection:
            return inspect(connection).has_table(name)

    def create(self) -> str | None:
        """Create the tables, or bring them up to this version's schema.

        Tables that other migrations made are left alone.

        Returns:
            The revision that was there before; None if there was none.

        Raises:
            StoreSetupError: They are of a schema that this version doesn't know, or other
                migrations made them and they aren't those of this version.
            StoreError: The database can't do it.
        """
        try:
            with self.engine.connect() as connection, connection.begin():
                self._begin(connection)
                before = set_up(connection, self.tables)
        except SQLAlchemyError as error:
            raise self.translated(error) from error
        self._created = True
        return before

    def revision(self) -> str | None:
        """The schema's revision that is there; None if the migrations haven't been run.

        Raises:
            StoreError: The database can't be asked.
        """
        with self.translating(), self.engine.connect() as connection:
            return revision_of(connection, self.tables)

    # -- what goes wrong

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise what goes wrong inside as StoreError.

        Raises:
            StoreError: Something did.
        """
        try:
            yield
        except SQLAlchemyError as error:
            raise self.translated(error) from error

    def translated(self, error: SQLAlchemyError) -> StoreError:
        """An error in words that say what to do."""
        where = shown(self.engine.url)
        if isinstance(error, StatementError):
            error.hide_parameters, error.params = True, None
        redact(error)
        if isinstance(error, PoolTimeout):
            return StoreError(f"every connection to {where} is in use: {error}")
        said = str(getattr(error, "orig", None) or error)
        lowered = said.lower()
        if any(words in lowered for words in ("readonly database", "read-only", "read only")):
            return StoreError(f"the database {where} is read-only: {said}")
        if any(words in lowered for words in ("database or disk is full", "no space left")):
            return StoreError(f"the database {where} is full: {said}")
        if any(words in lowered for words in _MISSING):
            with contextlib.suppress(SQLAlchemyError), self.engine.connect() as connection:
                wrong = wrong_with(connection, self.tables)
                if wrong is not None:
                    return StoreSetupError(wrong)
        return StoreError(f"the database {where} can't do it: {said}")

    def check(self) -> None:
        """See that the tables are there and are those of this version.

        Raises:
            StoreSetupError: They aren't.
            StoreError: The database can't be asked.
        """
        with self.translating():
            self._create_once()
            with self.engine.connect() as connection:
                wrong = wrong_with(connection, self.tables)
        if wrong is not None:
            raise StoreSetupError(wrong)

    # -- life

    def same_as(self, engine: Engine) -> bool:
        """True if an engine goes to this database, so that its transactions can hold our rows."""
        if engine is self.engine or engine.pool is self.engine.pool:
            return True
        same = self._same.get(engine)
        if same is None:
            same = self._same[engine] = self._is_same(engine)
        return same

    def _is_same(self, engine: Engine) -> bool:
        mine, other = self.engine.url, engine.url
        if self.embedded or in_memory(other):
            return False
        return _place(mine) == _place(other)

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to a SQLite file.

        A child that inherits one shares its locks in memory, but not in the file: it would take
        itself to hold a lock that only its parent has.
        """
        if self.name == "sqlite" and not self.embedded:
            self.engine.dispose()

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self._turn = self._make_turn()
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections of an engine made here."""
        if self.owned:
            self.engine.dispose()


def metadata_for(prefix: str, schema: str | None) -> Tables:
    """Tables in a metadata of their own."""
    from thorn_sqlalchemy.schema import define_tables

    return define_tables(MetaData(), prefix=prefix, schema=schema)


_MISSING = ("no such table", "no such column", "has no column", "doesn't exist", "does not exist",
            "unknown column")  # fmt: skip


def _place(url: URL) -> tuple[Any, ...]:
    backend = url.get_backend_name().replace("mariadb", "mysql")
    ports = {"postgresql": 5432, "mysql": 3306}
    if backend == "sqlite":
        return (backend, os.path.realpath(url.database or ""), url.query)
    host = "localhost" if url.host in (None, "127.0.0.1", "::1") else url.host
    return (backend, host, url.port or ports.get(backend), url.database)


def _commit(connection: Connection, transaction: RootTransaction) -> None:
    try:
        transaction.commit()
    except DBAPIError:
        # SQLite goes on with it, and SQLAlchemy takes it to be over.
        with contextlib.suppress(Exception):
            connection.connection.rollback()
        raise


def _in_transaction(connection: Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def _passing(error: SQLAlchemyError) -> bool:
    """True if the same may well succeed a moment later."""
    if _disconnected(error):
        return True
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if code is None and original is not None and original.args:
        code = original.args[0]
    # Two that insert the same row at once: the second finds it the next time.
    return code in CONFLICTS or isinstance(error, IntegrityError) or "locked" in str(original)


def _disconnected(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated
