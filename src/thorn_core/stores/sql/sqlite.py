"""The executor on the standard library's sqlite3: a file, or a database in memory."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from thorn_core.errors import ConfigurationError
from thorn_core.ports.executor import Connection, Failure
from thorn_core.ports.tables import Column
from thorn_core.ports.unit_of_work import UnitOfWork
from thorn_core.stores.sql.failures import failure_of
from thorn_core.stores.sql.transactions import Transaction, begin

# UPDATE … FROM needs 3.33, RETURNING needs 3.35.
LEAST_VERSION = (3, 35)
# Seconds to wait for another writer, or for a connection. A longer transaction is stuck.
BUSY_TIMEOUT = 10.0
# The maximum number of connections in use, mostly for reading: more threads gain nothing.
CONNECTIONS = 8
URL = "sqlite://"
MEMORY = ("", ":memory:")


class SqliteConnection:
    """A connection of sqlite3 in autocommit mode; the executor begins transactions explicitly.

    Args:
        driver: The connection of sqlite3.
    """

    __slots__ = ("driver", "durable")

    def __init__(self, driver: sqlite3.Connection) -> None:
        self.driver, self.durable = driver, True

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        return self.driver.execute(sql, params).fetchall()

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it matched."""
        before = self.driver.total_changes
        self.driver.execute(sql, params)
        # The cursor doesn't count rows of a statement with WITH.
        return self.driver.total_changes - before

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        self.driver.executemany(sql, rows)

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows."""
        names = ", ".join(f'"{column.name}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        self.driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)


class SqliteExecutor:
    """Lends connections to a SQLite database to the SQL store.

    It opens a file in WAL mode: commits survive a power failure, and readers don't wait for the
    writer. A database in memory has a single connection, which one thread uses at a time.

    Args:
        url: `sqlite:///thorn.db` is a file relative to the working directory,
            `sqlite:////var/thorn.db` an absolute path, `sqlite://` a database in memory.

    Raises:
        ConfigurationError: The URL is not a SQLite URL, or SQLite is too old.

    Example:
        >>> executor = SqliteExecutor("sqlite://")
        >>> with executor.transaction() as connection:
        ...     connection.execute("SELECT 1 + ?", [1])
        [(2,)]
        >>> executor.close()
    """

    dialect, placeholder = "sqlite", "?"
    creates = True
    # SQLITE_MAX_LENGTH, the default at compile time.
    max_bytes = 1_000_000_000

    def __init__(self, url: str) -> None:
        if sqlite3.sqlite_version_info < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old; use a Python with {least} or newer"
            )
        path = _path(url)
        self.embedded = path in MEMORY
        self.place = URL if self.embedded else f"{URL}/{path}"
        self.way_out = f"thorn init-db --store {self.place}"
        # Absolute, because a program may change its working directory.
        self._path = ":memory:" if self.embedded else os.path.realpath(path)
        self._inherited: list[SqliteConnection] = []
        self._begin_life()

    def __repr__(self) -> str:
        return f"<SqliteExecutor {self.place}>"

    def _begin_life(self) -> None:
        # SQLite allows one writer and lets others poll at growing intervals, so they wait here.
        self._writing = threading.Lock()
        self._room = threading.BoundedSemaphore(1 if self.embedded else CONNECTIONS)
        self._idle: list[SqliteConnection] = []
        self._in_use: set[SqliteConnection] = set()
        # Python 3.13 warns about unclosed connections.
        self._unclosed = weakref.finalize(self, _close_all, self._idle)

    # -- connections

    def _open(self) -> SqliteConnection:
        # A pool's connections move between threads.
        driver = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        if not self.embedded:
            try:
                with contextlib.suppress(sqlite3.OperationalError):  # The database is read-only.
                    driver.execute("PRAGMA journal_mode = WAL")
                driver.execute("PRAGMA synchronous = FULL")
            except BaseException:
                driver.close()
                raise
        return SqliteConnection(driver)

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteConnection]:
        """Open a connection for SELECTs; for a file, it waits for no writer."""
        room = self._room
        if not room.acquire(timeout=BUSY_TIMEOUT):
            raise _locked(f"every connection to {self.place} is in use")
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            room.release()

    def _take(self) -> SqliteConnection:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        self._in_use.add(connection)
        return connection

    def _give_back(self, connection: SqliteConnection) -> None:
        if connection not in self._in_use:
            # Meanwhile the executor was closed, or the process forked.
            if connection not in self._inherited:
                connection.driver.close()
            return
        self._in_use.discard(connection)
        if connection.driver.in_transaction:
            # The rollback fails, too.
            connection.driver.close()
        else:
            self._idle.append(connection)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[SqliteConnection]:
        """Open a transaction of the store's own, the only one that writes.

        Args:
            durable: If False, commit to a file without waiting for the disk.
        """
        writing = self._writing
        if not writing.acquire(timeout=BUSY_TIMEOUT):
            raise _locked("database is locked")
        try:
            with self.reading() as connection:
                driver = connection.driver
                if durable is not connection.durable and not self.embedded:
                    driver.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    connection.durable = durable
                # SQLite doesn't let a reader write after another writer's commit: it fails at once.
                # So begin as a writer.
                driver.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    if connection in self._inherited:
                        raise ConfigurationError(
                            "a forked process can't go on with its parent's transaction"
                        )
                    driver.execute("COMMIT")
                except BaseException:
                    # SQLite rolls back by itself after some errors.
                    if driver.in_transaction and connection not in self._inherited:
                        with contextlib.suppress(sqlite3.Error):
                            driver.execute("ROLLBACK")
                    raise
        finally:
            writing.release()

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open a transaction for the program: commit at the end, roll back on an exception."""
        return begin(self)

    def borrow(self, unit: UnitOfWork) -> Connection | None:
        """Return the connection of a transaction from `begin` in the same database, or None.

        Raises:
            ConfigurationError: The transaction has ended.
        """
        if not isinstance(unit, Transaction):
            return None
        other = unit.executor
        file = isinstance(other, SqliteExecutor) and other.in_file(self._path)
        return unit.lend() if other is self or (file and not self.embedded) else None

    def in_file(self, path: str) -> bool:
        """Return True if the database is in a file."""
        return not self.embedded and self._path == path

    # -- errors

    def classify(self, error: BaseException) -> Failure | None:
        """Return the meaning of an error of sqlite3, or None for any other error."""
        if isinstance(error, UnicodeEncodeError | OverflowError):
            # A lone surrogate, or a number beyond 64 bits.
            return Failure.DATA
        if not isinstance(error, sqlite3.Error):
            return None
        return failure_of(error) or Failure.OTHER

    # -- life cycle

    def listening(self, channel: str) -> AbstractContextManager[Any] | None:
        """Yield None: SQLite has no notifications."""
        return None

    def before_fork(self) -> None:
        """Close idle connections to a file; called before a fork.

        A child inherits a connection's locks in memory, but not in the file: it would wrongly
        believe that it holds its parent's lock.
        """
        if not self.embedded:
            _close_all(self._idle)

    def after_fork(self) -> None:
        """Forget the connections; called in a forked child.

        A child begins with an empty database if it is in memory.
        """
        # Closing a connection would end its log while the parent still writes it.
        self._inherited += [*self._idle, *self._in_use]
        self._unclosed.detach()
        self._begin_life()

    def close(self) -> None:
        """Close the connections; those in use close when they are returned."""
        self._in_use = set()
        _close_all(self._idle)


def _close_all(idle: list[SqliteConnection]) -> None:
    while idle:
        idle.pop().driver.close()


def _path(url: str) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(
            f"store={url!r} is not a URL; install thorn-sqlalchemy for Engines of SQLAlchemy's"
        )
    scheme, separator, path = url.partition("://")
    if scheme != "sqlite" or not separator or "?" in path or (path and not path.startswith("/")):
        raise ConfigurationError(
            f"store={url!r} is not the URL of a SQLite database; write sqlite:///thorn.db,"
            " sqlite:////var/lib/thorn.db or sqlite://"
        )
    return path.removeprefix("/")


def _locked(message: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
