"""The SQL store's statements on a connection of Django's, and connections of Thorn's own."""

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

# Connections kept: the engine's threads', and one for notifications.
KEPT = 5
# Seconds until one is replaced by another, as proxies and firewalls do it less politely.
MAX_AGE = 3600
# Seconds. Whoever holds a lock for longer has stopped; SQLite waits as long for another writer.
LOCK_TIMEOUT = 10
# Seconds that a statement may take: a purge of a large batch takes its time.
STATEMENT_TIMEOUT = 300
CONNECT_TIMEOUT = 5
# SQLite's words for how it waits for the disk.
NORMAL, FULL = 1, 2
# Connections of a parent process: a driver that closed them here would close the parent's.
_inherited: list[BaseDatabaseWrapper] = []


class PacketTooLargeError(DataError):
    """A statement is larger than MySQL's max_allowed_packet: sent, it would end the connection."""


class DjangoConnection:
    """Runs the SQL store's statements on a connection of Django's.

    They go through Django's cursors, so that `connection.queries`, `assertNumQueries` and
    `execute_wrapper` see them.

    Args:
        wrapper: The connection.
        borrowed: It is in a transaction of the program's, which a statement that fails may end.
    """

    __slots__ = ("_borrowed", "wrapper")

    def __init__(self, wrapper: BaseDatabaseWrapper, *, borrowed: bool = False) -> None:
        self.wrapper, self._borrowed = wrapper, borrowed

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and give back its rows."""
        with self._cursor() as cursor:
            self._run(cursor, sql, params)
            if cursor.description is None:
                return []
            return plain_rows(cursor.fetchall())

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and say how many rows it matched."""
        with self._cursor() as cursor:
            if self.wrapper.vendor != "sqlite":
                self._run(cursor, sql, params)
                return int(cursor.rowcount)
            # Its cursor doesn't count behind a WITH.
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
        """Insert rows by COPY, or by statements of many rows."""
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
        # Django has opened the transaction, so that it ends with the others' statements.
        with (
            self._cursor() as cursor,
            self._explained(),
            self.wrapper.wrap_database_errors,
            cursor.copy(sql) as copy,
        ):
            copy_rows(copy, columns, rows)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Make it Django's connection in this thread, so that the ORM works on it."""
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
            # The driver refuses to encode it: half of a character, NUL, a number beyond 64 bits.
            raise DataError(f"a value can't be stored: {type(error).__name__}") from None
        except Error as error:
            wrapper = self.wrapper
            if self._borrowed and wrapper.vendor == "postgresql" and wrapper.in_atomic_block:
                # The transaction is lost, whoever catches this; Django is to say so.
                wrapper.set_rollback(True)
                wrapper.rollback_exc = error  # type: ignore[attr-defined]
            raise

    def _check_size(self, cursor: Any, sql: str, params: Sequence[Any]) -> None:
        """Refuse a statement that the server would end the connection for, a program's at worst."""
        problem = packet_problem(sql, params, lambda: max_allowed_packet(cursor))
        if problem is not None:
            raise PacketTooLargeError(problem)


def max_allowed_packet(cursor: Any) -> int:
    """Bytes that MySQL takes of a statement."""
    cursor.execute(MAX_PACKET)
    return int(cursor.fetchone()[0])


@contextlib.contextmanager
def installed(wrapper: BaseDatabaseWrapper) -> Iterator[None]:
    """Make a connection that of Django in this thread."""
    theirs = connections[wrapper.alias]
    connections[wrapper.alias] = wrapper
    try:
        yield
    finally:
        connections[wrapper.alias] = theirs


@contextlib.contextmanager
def off_loop() -> Iterator[None]:
    """Say what to do where Django refuses to use a database in an event loop's thread.

    Raises:
        ConfigurationError: It does.
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
    """Connections to one of Django's databases that no thread of the program's has.

    Args:
        alias: The database's.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: Seconds to wait for a lock.
        self.lock_timeout: float = LOCK_TIMEOUT
        self._idle: list[BaseDatabaseWrapper] = []
        # How those of a SQLite database in WAL mode wait for the disk.
        self._levels: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[BaseDatabaseWrapper]:
        """One of them, open."""
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
            # Tests work on another database of the same alias.
            _close([kept])
            return self.new()
        kept.close_if_unusable_or_obsolete()
        return kept

    def _put(self, connection: BaseDatabaseWrapper) -> None:
        # With DEBUG they would hold thousands of payloads.
        connection.queries_log.clear()
        usable = connection.connection is not None and connection.autocommit
        with self._lock:
            kept = usable and not self._closed and len(self._idle) < KEPT
            if kept:
                self._idle.append(connection)
        if not kept and connection.connection is not None and connection not in _inherited:
            _close([connection])

    def new(self) -> BaseDatabaseWrapper:
        """Another one, not open yet, that is the caller's to close; any thread may use it.

        Statements of one transaction see on it what others have committed meanwhile, whatever the
        project's own connections do.
        """
        connection: BaseDatabaseWrapper = connections.create_connection(self.alias)
        options = {**connection.settings_dict["OPTIONS"]}
        options.pop("pool", None)
        if connection.vendor == "sqlite":
            # SQLite refuses to make a reader a writer once somebody else has written, at once and
            # without waiting: so it is a writer from the beginning.
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
        """A transaction has begun on one of them."""
        if connection.vendor == "postgresql":
            # Of this transaction only: behind PgBouncer the session is shared.
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SET LOCAL lock_timeout = {round(1000 * self.lock_timeout)};"
                    f" SET LOCAL statement_timeout = {1000 * STATEMENT_TIMEOUT}"
                )

    def sync(self, connection: BaseDatabaseWrapper, *, durable: bool) -> None:
        """Let what follows wait for the disk, or not; other journals than WAL always do."""
        wanted = FULL if durable else NORMAL
        if self._levels.get(connection, wanted) != wanted:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA synchronous = {wanted}")
            self._levels[connection] = wanted

    def drop(self) -> None:
        """Close those that are idle."""
        with self._lock:
            closing, self._idle = self._idle, []
        _close(closing)

    def forget(self) -> None:
        """In a forked child: leave them to the parent."""
        _inherited.extend(self._idle)
        self._idle = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close those that are idle, and keep none from now on."""
        self._closed = True
        self.drop()


def _close(closing: Sequence[BaseDatabaseWrapper]) -> None:
    for connection in closing:
        with contextlib.suppress(Error):
            # SQLite's own way leaves a database in memory open, for others to find it again.
            BaseDatabaseWrapper.close(connection)
