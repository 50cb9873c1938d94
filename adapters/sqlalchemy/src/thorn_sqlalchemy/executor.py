"""The executor on SQLAlchemy: lends an engine's connections to the SQL store."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, MetaData, Table, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from thorn_core import StoreSetupError, UnitOfWork
from thorn_core.ports.executor import Failure
from thorn_core.stores.sql.drivers import MAX_PACKET
from thorn_sqlalchemy.connections import DriverConnection, placeholder_of
from thorn_sqlalchemy.engines import (
    DIALECTS,
    LIBPQ,
    LOCK_TIMEOUT,
    MYSQL,
    POSTGRESQL,
    SQLITE,
    STATEMENT_TIMEOUT,
    SUPPORTED,
    engine_of,
    in_memory,
    pooled,
    same_database,
    shown,
)
from thorn_sqlalchemy.failures import failure_of
from thorn_sqlalchemy.quiet import quiet
from thorn_sqlalchemy.tables import define_tables
from thorn_sqlalchemy.unit_of_work import SqlUnitOfWork

# One statement and one round trip, like psycopg's own BEGIN. PgBouncer gives the next transaction
# to another connection, so session settings would be lost or reach another program.
BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED{mode};"
    f" SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000};"
    f" SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000}"
)
# Statements that begin a transaction of the store, for writing and for reading.
WRITING = {
    POSTGRESQL: (BEGIN.format(mode=""),),
    MYSQL: ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"),
    # SQLite doesn't let a reader write after another writer's commit: it fails at once. So begin as
    # a writer.
    SQLITE: ("BEGIN IMMEDIATE",),
}
READING = {POSTGRESQL: (BEGIN.format(mode=", READ ONLY"),), MYSQL: (), SQLITE: ()}


class SqlAlchemyExecutor:
    """Lends the connections of a SQLAlchemy engine to the SQL store.

    Args:
        source: A URL with a synchronous driver, or the user's engine.
        aliases: Further URLs of the same database, such as a pooler's. A transaction of an engine
            on one of them can hold the store's rows.
        table: One of Thorn's tables; it selects the database of sessions with several.

    Raises:
        ConfigurationError: The URL is invalid, its driver is asynchronous or not installed, or the
            database isn't supported.

    Example:
        >>> executor = SqlAlchemyExecutor("sqlite://")
        >>> with executor.transaction() as connection:
        ...     connection.execute("SELECT 1 + ?", [1])
        [(2,)]
        >>> executor.close()
    """

    def __init__(
        self,
        source: str | URL | Engine,
        *,
        aliases: Sequence[str | URL] = (),
        table: Table | None = None,
    ) -> None:
        engine = engine_of(source)
        self.owned = not isinstance(source, Engine)
        self.dialect = DIALECTS[engine.dialect.name]
        self.placeholder = placeholder_of(engine.dialect.paramstyle)
        self.embedded = in_memory(engine.url)
        self.creates = self.owned and self.dialect == SQLITE
        self.place = shown(engine.url)
        self.way_out = f"thorn init-db --store {self.place}"
        self.engine = quiet(engine)
        self._aliases = [make_url(alias) for alias in aliases]
        self._same: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()
        self._table = define_tables(MetaData()).messages if table is None else table
        self._supported = False
        self._turn = self._make_turn()
        # An engine created here uses READ COMMITTED and begins by itself.
        own_mysql = self.owned and self.dialect == MYSQL
        self._writing = () if own_mysql else WRITING[self.dialect]
        self._reading = READING[self.dialect]

    def __repr__(self) -> str:
        return f"<SqlAlchemyExecutor {self.place}>"

    @functools.cached_property
    def max_bytes(self) -> int:
        """The maximum size of a statement in bytes."""
        if self.dialect != MYSQL:
            # SQLite's limit is fixed at compile time; PostgreSQL limits a message.
            return 1_000_000_000
        with self.reading() as connection:
            return int(connection.execute(MAX_PACKET)[0][0])

    # -- connections

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[DriverConnection]:
        """Open a transaction of the store's own.

        Args:
            durable: If False, commit to a SQLite file without waiting for the disk.
        """
        with (
            self._turn,
            self._connect() as connection,
            self._hasty(connection, hasty=not durable),
            _transaction(connection, self._writing),
        ):
            yield DriverConnection(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[DriverConnection]:
        """Open a connection for SELECTs."""
        with self._connect() as connection:
            if not self._reading:
                yield DriverConnection(connection)
                return
            with _transaction(connection, self._reading):
                yield DriverConnection(connection)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction for a program without its own; yield a SQLAlchemy Connection."""
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._checkout())
            self._check_supported(connection)
            transaction = stack.enter_context(connection.begin())
            if self.dialect == SQLITE and not _in_transaction(connection):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            if transaction.is_active:
                try:
                    transaction.commit()
                except DBAPIError:
                    # SQLite continues the transaction although SQLAlchemy considers it ended.
                    with contextlib.suppress(Exception):
                        connection.connection.rollback()
                    raise

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._checkout() as connection:
            self._check_supported(connection)
            if self.dialect == POSTGRESQL:
                # The executor begins transactions explicitly.
                self._autocommit(connection)
            yield connection

    def _checkout(self) -> Connection:
        try:
            return self.engine.connect()
        except PoolTimeout as error:
            raise PoolTimeout(f"every connection to {self.place} is in use: {error}") from error

    def _autocommit(self, connection: Connection) -> None:
        driver = self.engine.dialect.loaded_dbapi
        try:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        except driver.Error as error:
            # SQLAlchemy doesn't evaluate this driver error, which means that this connection is
            # lost, and perhaps the others in the pool.
            lost = self.engine.dialect.is_disconnect(error, None, None)
            connection.invalidate(error)
            if lost:
                self.engine.dispose()
            raise DBAPIError(None, None, error, connection_invalidated=lost) from error

    def _check_supported(self, connection: Connection) -> None:
        if not self._supported:
            check_version(connection)
            check_bytes(connection)
            self._supported = True

    @contextlib.contextmanager
    def _hasty(self, connection: Connection, *, hasty: bool) -> Iterator[None]:
        """Let SQLite commit inside the block without waiting for the disk.

        Restore the setting afterwards, because a user's Session may get the connection next.
        """
        if not hasty or not self.creates or self.embedded:
            yield
            return
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            driver.execute("PRAGMA synchronous = FULL")

    def _make_turn(self) -> AbstractContextManager[Any]:
        """Lock for a write: SQLite allows one writer and lets others poll at growing intervals."""
        return threading.Lock() if self.dialect == SQLITE else contextlib.nullcontext()

    def borrow(self, unit: UnitOfWork) -> DriverConnection | None:
        """Return the connection of a Session or Connection whose transaction is in this database.

        Raises:
            ConfigurationError: It doesn't know its database, its transaction has ended, or it is
                asynchronous and used without `await`.
        """
        if not isinstance(unit, SqlUnitOfWork):
            return None
        connection = unit.connection(self._table, self.same_as)
        return None if connection is None else DriverConnection(connection, borrowed=True)

    def same_as(self, engine: Engine) -> bool:
        """Return True if an engine uses this database, so its transactions can hold the rows."""
        same = self._same.get(engine)
        if same is None:
            same = self._same[engine] = same_database(self.engine, engine, self._aliases)
        return same

    def listening(self, channel: str) -> AbstractContextManager[Any] | None:
        """Open a connection that listens to a channel; yield None if the driver can't."""
        if self.dialect != POSTGRESQL or self.engine.dialect.driver not in LIBPQ:
            return None
        return self._listening(channel)

    @contextlib.contextmanager
    def _listening(self, channel: str) -> Iterator[Any]:
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if pooled(driver):
                raise StoreSetupError(f"{self.place} is a pooler's URL; poolers can't listen")
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            # Detach it from the pool: it listens until it is closed.
            connection.detach()
            connection.exec_driver_sql(f'LISTEN "{channel}"')
            yield driver

    # -- errors

    def classify(self, error: BaseException) -> Failure | None:
        """Return the meaning of an error of SQLAlchemy or the driver; None for any other error."""
        return failure_of(error, self.engine.dialect.loaded_dbapi)

    # -- life cycle

    def before_fork(self) -> None:
        """Close idle connections to a SQLite file; called before a fork.

        A child inherits a connection's locks in memory, but not in the file: it would wrongly
        believe that it holds its parent's lock.
        """
        if self.dialect == SQLITE and not self.embedded:
            self.engine.dispose()

    def after_fork(self) -> None:
        """Leave the connections to the parent; called in a forked child."""
        self._turn = self._make_turn()
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections of an engine created here."""
        if self.owned:
            self.engine.dispose()


def check_version(connection: Connection) -> None:
    """Check that a server, or SQLite, is new enough.

    Raises:
        StoreSetupError: It is too old.
    """
    dialect: Any = connection.dialect
    least = {POSTGRESQL: (13,), MYSQL: (8,), SQLITE: (3, 35)}[DIALECTS[dialect.name]]
    if getattr(dialect, "is_mariadb", False):
        least = (10, 6)
    found = dialect.server_version_info
    if found is not None and tuple(found) < least:
        version = ".".join(map(str, found))
        raise StoreSetupError(
            f"{shown(connection.engine.url)} is {dialect.name} {version}, which isn't supported;"
            f" use {SUPPORTED}"
        )


def check_bytes(connection: Connection) -> None:
    """Check that the driver marks bytes as such.

    mysqlclient writes them as text by default, and the server then changes some of them.

    Raises:
        StoreSetupError: It doesn't.
    """
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "mysqldb" and not getattr(driver, "_binary_prefix", True):
        raise StoreSetupError(
            f"mysqlclient writes bytes as text to {shown(connection.engine.url)}; create the engine"
            " with connect_args={'binary_prefix': True}"
        )


@contextlib.contextmanager
def _transaction(connection: Connection, beginning: Sequence[str]) -> Iterator[None]:
    """Open a transaction that statements begin, commit and roll back."""
    connection.begin()
    if _in_transaction(connection):
        # A program's listener has begun a transaction that locks for writing too late.
        connection.exec_driver_sql("ROLLBACK")
    for sql in beginning:
        # Without parameters, PostgreSQL's drivers accept several statements at once.
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        try:
            if not connection.invalidated:
                connection.exec_driver_sql("ROLLBACK")
        except Exception:
            connection.invalidate()
        raise


def _in_transaction(connection: Connection) -> bool:
    """Return True if SQLite is in a transaction."""
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
