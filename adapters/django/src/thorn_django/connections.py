"""Runs the SQL store's statements on Django's connections, and on Thorn's own ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import ConfigurationError
from thorn_core.ports.tables import Column
from thorn_core.stores.sql.drivers import (
    MAX_PACKET,
    copy_rows,
    inserts,
    packet_problem,
    plain_rows,
)

# The number of idle connections to keep: for the engine's threads, and for notifications.
KEPT = 5
# The maximum age of a connection in seconds, before a proxy or firewall cuts it.
MAX_AGE = 3600
# Seconds to wait for a lock, on SQLite for another writer. A longer transaction is stuck.
LOCK_TIMEOUT = 10
# The maximum duration of a statement in seconds: a purge of a large batch takes long.
STATEMENT_TIMEOUT = 300
CONNECT_TIMEOUT = 5
# SQLite's values of `synchronous`: how commits wait for the disk.
NORMAL, FULL = 1, 2
# Connections of a parent process: closing them in a child would close the parent's.
_inherited: list[BaseDatabaseWrapper] = []


class PacketTooLargeError(DataError):
    """A statement exceeds MySQL's max_allowed_packet; the server would end the connection."""


class DjangoConnection:
    """Runs the SQL store's statements on a Django connection.

    It uses Django's cursors, so that `connection.queries`, `assertNumQueries` and `execute_wrapper`
    see the statements.

    Args:
        wrapper: The connection.
        borrowed: True inside the program's transaction, which a failed statement may end.
    """

    __slots__ = ("_borrowed", "wrapper")

    def __init__(self, wrapper: BaseDatabaseWrapper, *, borrowed: bool = False) -> None:
        self.wrapper, self._borrowed = wrapper, borrowed

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self._cursor() as cursor:
            self._run(cursor, sql, params)
            if cursor.description is None:
                return []
            rows = cursor.fetchall()
        views = self.wrapper.vendor == "postgresql" and not _copies()  # psycopg2
        return plain_rows(rows) if views else list(map(tuple, rows))

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it matched."""
        with self._cursor() as cursor:
            if self.wrapper.vendor != "sqlite":
                self._run(cursor, sql, params)
                return int(cursor.rowcount)
            # SQLite's cursor doesn't count rows of a statement with WITH.
            before = self.wrapper.connection.total_changes
            self._run(cursor, sql, params)
            return int(self.wrapper.connection.total_changes - before)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        with self._cursor() as cursor, self._explained():
            cursor.executemany(sql, rows)

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows with COPY, or with INSERTs of many rows."""
        names = ", ".join(self.wrapper.ops.quote_name(column.name) for column in columns)
        if self.wrapper.vendor == "postgresql" and _copies():
            self._copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)", columns, rows)
            return
        insert = f"INSERT INTO {table} ({names}) VALUES "  # noqa: S608
        if self.wrapper.vendor == "sqlite":
            self.execute_many(f"{insert}({', '.join(['%s'] * len(columns))})", rows)
            return
        for statement, params in inserts(self.wrapper.vendor, insert, columns, rows):
            self.change(statement, params)

    def _copy(self, sql: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
        # Django has opened the transaction, so it ends together with the others' statements.
        with (
            self._cursor() as cursor,
            self._explained(),
            self.wrapper.wrap_database_errors,
            cursor.copy(sql) as copy,
        ):
            copy_rows(copy, columns, rows)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Install it as Django's connection in this thread, so that the ORM uses it."""
        with installed(self.wrapper):
            yield

    def _cursor(self) -> Any:
        with off_loop():
            return self.wrapper.cursor()

    def _run(self, cursor: Any, sql: str, params: Sequence[Any]) -> None:
        if self.wrapper.vendor == "mysql":
            self._check_size(cursor, sql, params)
        with self._explained():
            cursor.execute(sql, params or None)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OverflowError) as error:
            # The driver can't encode a value: a lone surrogate, NUL, or a number beyond 64 bits.
            raise DataError(f"a value can't be stored: {type(error).__name__}") from None
        except Error as error:
            wrapper = self.wrapper
            if self._borrowed and wrapper.vendor == "postgresql" and wrapper.in_atomic_block:
                # The transaction is lost, even if the program catches the error; mark it in Django.
                wrapper.set_rollback(True)
                wrapper.rollback_exc = error  # type: ignore[attr-defined]
            raise

    def _check_size(self, cursor: Any, sql: str, params: Sequence[Any]) -> None:
        """Refuse a statement that would make the server end the connection, perhaps a program's."""
        problem = packet_problem(sql, params, lambda: max_allowed_packet(cursor))
        if problem is not None:
            raise PacketTooLargeError(problem)


def max_allowed_packet(cursor: Any) -> int:
    """Return MySQL's maximum size of a statement in bytes."""
    cursor.execute(MAX_PACKET)
    return int(cursor.fetchone()[0])


@contextlib.contextmanager
def installed(wrapper: BaseDatabaseWrapper) -> Iterator[None]:
    """Install a connection as Django's in this thread."""
    theirs = connections[wrapper.alias]
    connections[wrapper.alias] = wrapper
    try:
        yield
    finally:
        connections[wrapper.alias] = theirs


@contextlib.contextmanager
def off_loop() -> Iterator[None]:
    """Raise advice if Django refuses to use a database in an event loop's thread.

    Raises:
        ConfigurationError: Django refuses it.
    """
    try:
        yield
    except SynchronousOnlyOperation as error:
        raise ConfigurationError(
            "Django's database can't be used in an event loop's thread; use: await event.asend(…),"
            " and await asyncio.to_thread(…) for everything else"
        ) from error


def _copies() -> bool:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


class OwnConnections:
    """Connections to one of Django's databases that no thread of the program uses.

    Args:
        alias: The alias of the database.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: Seconds to wait for a lock.
        self.lock_timeout: float = LOCK_TIMEOUT
        self._idle: list[BaseDatabaseWrapper] = []
        # The `synchronous` value of each connection to a SQLite database in WAL mode.
        self._levels: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[BaseDatabaseWrapper]:
        """Yield an open connection."""
        with off_loop():
            connection = self._take()
            try:
                if connection.connection is None:
                    connection.ensure_connection()
                    self._opened(connection)
                yield connection
            finally:
                self._put(connection)

    def _take(self) -> BaseDatabaseWrapper:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is None:
            return self.new()
        if kept.settings_dict["NAME"] != connections[self.alias].settings_dict["NAME"]:
            # Tests use another database with the same alias.
            _close([kept])
            return self.new()
        kept.close_if_unusable_or_obsolete()
        return kept

    def _put(self, connection: BaseDatabaseWrapper) -> None:
        # With DEBUG, the log of queries would hold thousands of payloads.
        connection.queries_log.clear()
        usable = connection.connection is not None and connection.autocommit
        with self._lock:
            kept = usable and not self._closed and len(self._idle) < KEPT
            if kept:
                self._idle.append(connection)
        if not kept and connection.connection is not None and connection not in _inherited:
            _close([connection])

    def new(self) -> BaseDatabaseWrapper:
        """Create a closed connection for any thread; the caller closes it.

        Its transactions use READ COMMITTED, whatever the project's own connections use.
        """
        connection: BaseDatabaseWrapper = connections.create_connection(self.alias)
        options = {**connection.settings_dict["OPTIONS"]}
        options.pop("pool", None)
        if connection.vendor == "sqlite":
            # SQLite doesn't let a reader write after another writer's commit: it fails at once. So
            # begin as a writer.
            options["transaction_mode"] = "IMMEDIATE"
            options["timeout"] = self.lock_timeout
        elif connection.vendor == "mysql":
            options["isolation_level"] = "read committed"
            options.setdefault("connect_timeout", CONNECT_TIMEOUT)
            options.setdefault("read_timeout", STATEMENT_TIMEOUT)
        elif connection.vendor == "postgresql":
            from django.db.backends.postgresql.psycopg_any import IsolationLevel

            options["isolation_level"] = IsolationLevel.READ_COMMITTED
            options.setdefault("connect_timeout", CONNECT_TIMEOUT)
        connection.settings_dict = {
            **connection.settings_dict,
            "OPTIONS": options,
            "AUTOCOMMIT": True,
            "CONN_MAX_AGE": MAX_AGE,
            "CONN_HEALTH_CHECKS": False,
        }
        connection.inc_thread_sharing()
        return connection

    def _opened(self, connection: BaseDatabaseWrapper) -> None:
        self._levels.pop(connection, None)
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                seconds = max(1, round(self.lock_timeout))
                cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {seconds}")
            elif connection.vendor == "sqlite":
                journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
                level = cursor.execute("PRAGMA synchronous").fetchone()[0]
                if (journal, level) == ("wal", FULL):
                    self._levels[connection] = level

    def begun(self, connection: BaseDatabaseWrapper) -> None:
        """Set the time limits of a transaction that has just begun."""
        if connection.vendor == "postgresql":
            # For this transaction only: behind PgBouncer, connections share sessions.
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SET LOCAL lock_timeout = {round(1000 * self.lock_timeout)};"
                    f" SET LOCAL statement_timeout = {1000 * STATEMENT_TIMEOUT}"
                )

    def sync(self, connection: BaseDatabaseWrapper, *, durable: bool) -> None:
        """Set whether the next commits wait for the disk; journals other than WAL always do."""
        wanted = FULL if durable else NORMAL
        if self._levels.get(connection, wanted) != wanted:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA synchronous = {wanted}")
            self._levels[connection] = wanted

    def drop(self) -> None:
        """Close idle connections."""
        with self._lock:
            closing, self._idle = self._idle, []
        _close(closing)

    def forget(self) -> None:
        """Leave the connections to the parent; called in a forked child."""
        _inherited.extend(self._idle)
        self._idle = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close idle connections, and keep none from now on."""
        self._closed = True
        self.drop()


def _close(closing: Sequence[BaseDatabaseWrapper]) -> None:
    for connection in closing:
        with contextlib.suppress(Error):
            # Django's own close() leaves a SQLite database in memory open for later use.
            BaseDatabaseWrapper.close(connection)
