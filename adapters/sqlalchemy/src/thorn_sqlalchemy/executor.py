"""The executor on SQLAlchemy: lends the SQL store connections of an engine."""

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

# One statement and one round trip, which psycopg's own BEGIN would be too. PgBouncer gives the next
# transaction to another connection: what is set for a session is lost there, or another program's.
BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED{mode};"
    f" SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000};"
    f" SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000}"
)
# How a transaction of the store's begins, and one that reads.
WRITING = {
    POSTGRESQL: (BEGIN.format(mode=""),),
    MYSQL: ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"),
    # SQLite refuses to make a reader a writer once somebody else has written, at once and without
    # waiting: so it is a writer from the beginning.
    SQLITE: ("BEGIN IMMEDIATE",),
}
READING = {POSTGRESQL: (BEGIN.format(mode=", READ ONLY"),), MYSQL: (), SQLITE: ()}


class SqlAlchemyExecutor:
    """Lends the SQL store connections of an engine of SQLAlchemy's.

    Args:
        source: A URL with a synchronous driver, or an engine of the user's.
        aliases: Further URLs of the same database, such as a pooler's: a transaction of an engine
            on one of them can hold the store's rows.
        table: One of Thorn's: sessions that have several databases are asked for its.

    Raises:
        ConfigurationError: The URL isn't one, its driver isn't installed or is asynchronous, or the
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
        # An engine made here has READ COMMITTED, and begins by itself.
        own_mysql = self.owned and self.dialect == MYSQL
        self._writing = () if own_mysql else WRITING[self.dialect]
        self._reading = READING[self.dialect]

    def __repr__(self) -> str:
        return f"<SqlAlchemyExecutor {self.place}>"

    @functools.cached_property
    def max_bytes(self) -> int:
        """Bytes that one statement may have."""
        if self.dialect != MYSQL:
            # SQLite compiles its limit in; PostgreSQL's is that of a message.
            return 1_000_000_000
        with self.reading() as connection:
            return int(connection.execute(MAX_PACKET)[0][0])

    # -- connections

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[DriverConnection]:
        """A transaction of the store's own.

        Args:
            durable: False commits to a SQLite file without waiting for the disk.
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
        """A connection for SELECTs."""
        with self._connect() as connection:
            if not self._reading:
                yield DriverConnection(connection)
                return
            with _transaction(connection, self._reading):
                yield DriverConnection(connection)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction for programs that have none of their own: a Connection of SQLAlchemy's."""
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
                    # SQLite goes on with it, and SQLAlchemy takes it to be over.
                    with contextlib.suppress(Exception):
                        connection.connection.rollback()
                    raise

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._checkout() as connection:
            self._check_supported(connection)
            if self.dialect == POSTGRESQL:
                # Transactions are begun by hand.
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
            # SQLAlchemy doesn't look at what the driver says here: that the connection is lost, and
            # so may be the others in the pool.
            lost = self.engine.dialect.is_disconnect(error, None, None)
            connection.invalidate(error)
            if lost:
                self.engine.dispose()
            raise DBAPIError(None, None, error, connection_invalidated=lost) from error

    def _check_supported(self, connection: Connection) -> None:
        if not self._supported:
            check_version(connection)
            self._supported = True

    @contextlib.contextmanager
    def _hasty(self, connection: Connection, *, hasty: bool) -> Iterator[None]:
        """Let SQLite commit inside of the block without waiting for the disk.

        Not beyond: the connection may be a user's Session's next.
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
        """SQLite lets one write; who waits for it looks again ever less often, so we queue here."""
        return threading.Lock() if self.dialect == SQLITE else contextlib.nullcontext()

    def borrow(self, unit: UnitOfWork) -> DriverConnection | None:
        """The connection of a Session's or Connection's transaction, if that is in this database.

        Raises:
            ConfigurationError: It doesn't know its database, its transaction is over, or it is
                asynchronous and used without awaiting.
        """
        if not isinstance(unit, SqlUnitOfWork):
            return None
        connection = unit.connection(self._table, self.same_as)
        return None if connection is None else DriverConnection(connection, borrowed=True)

    def same_as(self, engine: Engine) -> bool:
        """True if an engine goes to this database, so that its transactions can hold our rows."""
        same = self._same.get(engine)
        if same is None:
            same = self._same[engine] = same_database(self.engine, engine, self._aliases)
        return same

    def listening(self, channel: str) -> AbstractContextManager[Any] | None:
        """A connection of its own that listens to a channel; None where the driver can't."""
        if self.dialect != POSTGRESQL or self.engine.dialect.driver not in LIBPQ:
            return None
        return self._listening(channel)

    @contextlib.contextmanager
    def _listening(self, channel: str) -> Iterator[Any]:
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if pooled(driver):
                raise StoreSetupError(f"{self.place} is a pooler's, where nobody can listen")
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            # Not the pool's any more: it goes on listening until it is closed.
            connection.detach()
            connection.exec_driver_sql(f'LISTEN "{channel}"')
            yield driver

    # -- what goes wrong

    def classify(self, error: BaseException) -> Failure | None:
        """Say what an error of SQLAlchemy's or the driver's means; None if it is none."""
        return failure_of(error, self.engine.dialect.loaded_dbapi)

    # -- life

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to a SQLite file.

        A child that inherits one shares its locks in memory, but not in the file: it would take
        itself to hold a lock that only its parent has.
        """
        if self.dialect == SQLITE and not self.embedded:
            self.engine.dispose()

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self._turn = self._make_turn()
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections of an engine made here."""
        if self.owned:
            self.engine.dispose()


def check_version(connection: Connection) -> None:
    """See that a server, or SQLite, is new enough.

    Raises:
        StoreSetupError: It isn't.
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


@contextlib.contextmanager
def _transaction(connection: Connection, beginning: Sequence[str]) -> Iterator[None]:
    """A transaction that is begun, committed and rolled back by statements."""
    connection.begin()
    if _in_transaction(connection):
        # A program's listener has begun one, which writes too late.
        connection.exec_driver_sql("ROLLBACK")
    for sql in beginning:
        # Without parameters, PostgreSQL's drivers take several statements as one.
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
    """True if SQLite is in one."""
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
