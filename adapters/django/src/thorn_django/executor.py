"""The executor on Django's databases.

Django gives each thread a connection. The store works on that one while a transaction is open on
it, which its work then belongs to, or while it is open at all: a web process needs no second one.
Else, as in the engine's threads, it works on connections of its own, of which a few are kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from django.db import DataError, Error, IntegrityError, InterfaceError, connections, transaction
from django.db import OperationalError as DjangoOperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import ConfigurationError, StoreSetupError, UnitOfWork
from thorn_core.ports.executor import Failure
from thorn_core.stores.sql.failures import failure_of
from thorn_django.connections import (
    DjangoConnection,
    OwnConnections,
    PacketTooLargeError,
    installed,
    max_allowed_packet,
    off_loop,
)
from thorn_django.unit_of_work import DjangoUnitOfWork, in_transaction

VENDORS = ("postgresql", "mysql", "sqlite")
# SQLite compiles its limit in; PostgreSQL's is that of a message.
MAX_BYTES = 1_000_000_000
# Set on an error of a transaction of the program's: only who began that can try it again.
JOINED = "_thorn_joined"


class DjangoExecutor:
    """Lends the SQL store connections to one of Django's databases.

    Args:
        alias: Which.

    Raises:
        ConfigurationError: There is no such alias, or the database is none that Thorn speaks to.

    Example:
        >>> DjangoExecutor("defautl")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: ...unknown database 'defautl'; known databases: ...
    """

    placeholder = "%s"
    embedded = creates = False

    def __init__(self, alias: str = "default") -> None:
        if alias not in connections:
            raise ConfigurationError(
                f"unknown database {alias!r}; known databases: {', '.join(sorted(connections))}"
            )
        self.dialect = connections[alias].vendor
        if self.dialect not in VENDORS:
            raise ConfigurationError(
                f"the database {alias!r} uses {self.dialect}, which Thorn's Django store doesn't"
                " support; use PostgreSQL, MySQL, MariaDB or SQLite (THORN_STORE ="
                " 'django://alias')"
            )
        self.alias = alias
        self.place = f"django://{alias}"
        self.way_out = "manage.py migrate"
        if alias != "default":
            self.way_out += f" --database {alias}"
        self.own = OwnConnections(alias)
        self._here = threading.local()
        self._max_bytes = None if self.dialect == "mysql" else MAX_BYTES
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"<DjangoExecutor {self.alias}>"

    @property
    def max_bytes(self) -> int:
        """Bytes that one statement may have."""
        if self._max_bytes is None:
            with self.reading() as connection, connection.wrapper.cursor() as cursor:
                self._max_bytes = max_allowed_packet(cursor)
        return self._max_bytes

    # -- connections

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[DjangoConnection]:
        """A transaction of the store's own; a savepoint in the one that is open in this thread.

        Args:
            durable: False commits to a SQLite file without waiting for the disk.
        """
        theirs = connections[self.alias]
        if in_transaction(theirs) and not (self._apart and self.dialect != "sqlite"):
            with off_loop(), self._joined(), transaction.atomic(using=self.alias):
                yield DjangoConnection(theirs)
            return
        with self._turn(needed=self.dialect == "sqlite"), self._at_hand() as connection:
            own = connection is not theirs
            if own:
                self.own.sync(connection, durable=durable)
            with self._begin_on(connection):
                if own:
                    self.own.begun(connection)
                yield DjangoConnection(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[DjangoConnection]:
        """A connection for SELECTs: that of the transaction that is open in this thread, or any."""
        theirs = connections[self.alias]
        if in_transaction(theirs) and not self._apart:
            with self._joined():
                yield DjangoConnection(theirs)
            return
        # Connections to one database in memory lock whole tables, and nobody waits for those.
        needed = self.dialect == "sqlite" and _in_memory(theirs)
        with self._turn(needed=needed), self._at_hand() as connection:
            yield DjangoConnection(connection)

    @property
    def _apart(self) -> bool:
        return getattr(self._here, "apart", False)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Leave the transaction that is open in this thread alone, inside of the block.

        But for SQLite, where a second one would wait for the first.
        """
        before, self._here.apart = self._apart, True
        try:
            yield
        finally:
            self._here.apart = before

    @contextlib.contextmanager
    def _joined(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            setattr(error, JOINED, True)
            raise

    @contextlib.contextmanager
    def _at_hand(self) -> Iterator[BaseDatabaseWrapper]:
        """The thread's connection, if it is open and free; else one of our own."""
        theirs = connections[self.alias]
        with contextlib.ExitStack() as stack:
            if theirs.connection is None or in_transaction(theirs):
                connection = stack.enter_context(self.own.one())
            else:
                connection = theirs
            try:
                yield connection
            except Error as error:
                if self.classify(error) is Failure.LOST:
                    # Those kept are no better, then.
                    connection.close()
                    self.own.drop()
                raise

    @contextlib.contextmanager
    def _begin_on(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """A transaction that writes, from its beginning on, and is READ COMMITTED."""
        level = getattr(connection, "isolation_level", None)
        read_committed = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
        if self.dialect == "mysql" and level != "read committed":
            DjangoConnection(connection).execute(read_committed)
        atomic = transaction.atomic(using=self.alias)
        with off_loop(), installed(connection), _immediate(connection):
            atomic.__enter__()
        try:
            if self.dialect == "postgresql" and level != _read_committed():
                DjangoConnection(connection).execute(read_committed)
            yield
        except BaseException as error:
            with installed(connection):
                atomic.__exit__(type(error), error, error.__traceback__)
            raise
        with installed(connection):
            atomic.__exit__(None, None, None)

    @contextlib.contextmanager
    def begin(self) -> Iterator[str]:
        """A transaction on the thread's connection, a savepoint if one is open; gives its alias."""
        connection = connections[self.alias]
        with contextlib.ExitStack() as stack:
            with off_loop():
                connection.ensure_connection()
            with _immediate(connection):
                stack.enter_context(transaction.atomic(using=self.alias))
            yield self.alias

    def borrow(self, unit: UnitOfWork) -> DjangoConnection | None:
        """The connection of a transaction that is open in this thread, if it is in this database.

        A unit of work of Django's is never over: without a transaction it takes effect at once.
        """
        if not isinstance(unit, DjangoUnitOfWork):
            return None
        connection = unit.connection()
        if connection is None or not self.same_as(connection.alias):
            return None
        return DjangoConnection(connection, borrowed=True)

    def same_as(self, alias: str) -> bool:
        """True if another alias goes to the same database: its transactions can hold rows, too."""
        mine, other = connections[self.alias], connections[alias]
        if alias == self.alias:
            return True
        if self.dialect == "sqlite" and _in_memory(mine):
            return False
        return _place(mine) == _place(other)

    def listening(self, channel: str) -> contextlib.AbstractContextManager[Any] | None:
        """A connection of its own that listens to a channel; None but on PostgreSQL."""
        return self._listening(channel) if self.dialect == "postgresql" else None

    @contextlib.contextmanager
    def _listening(self, channel: str) -> Iterator[Any]:
        with contextlib.closing(self.own.new()) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                if cursor.fetchone()[0] != connection.connection.info.backend_pid:
                    # PgBouncer tells no real one.
                    raise StoreSetupError(f"{self.place} is a pooler's, where nobody can listen")
                cursor.execute(f'LISTEN "{channel}"')
            yield connection.connection

    @contextlib.contextmanager
    def _turn(self, *, needed: bool) -> Iterator[None]:
        """SQLite lets one write; who waits for it looks again ever less often, so we queue here."""
        if not needed:
            yield
            return
        writing = self._writing
        if not writing.acquire(timeout=self.own.lock_timeout):
            raise _locked()
        try:
            yield
        finally:
            writing.release()

    # -- what goes wrong

    def classify(self, error: BaseException) -> Failure | None:
        """Say what an error of Django's database layer means; None if it is none.

        A transaction that was broken before is none of the store's.
        """
        if isinstance(error, transaction.TransactionManagementError):
            return None
        if not isinstance(error, Error):
            return None
        failure = self._failure(error)
        if getattr(error, JOINED, False) and failure in (Failure.RETRY, Failure.LOST):
            return Failure.OTHER
        return failure

    def _failure(self, error: Error) -> Failure:
        if isinstance(error, PacketTooLargeError):
            return Failure.TOO_LARGE
        known = failure_of(error.__cause__ or error)
        if known is not None:
            return known
        if isinstance(error, InterfaceError):
            return Failure.LOST
        if isinstance(error, DataError | IntegrityError):
            return Failure.DATA
        if isinstance(error, DjangoOperationalError) and self.dialect == "postgresql":
            # Its server's errors have a code; this is of the connection.
            return Failure.LOST
        return Failure.OTHER

    # -- life

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to SQLite."""
        if self.dialect == "sqlite":
            self.own.drop()

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self.own.forget()
        self._here = threading.local()
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close the connections that aren't Django's own, and keep none from now on."""
        self.own.close()


@contextlib.contextmanager
def _immediate(connection: Any) -> Iterator[None]:
    """Let SQLite begin as a writer: it refuses to make a reader one if others have written."""
    if connection.vendor != "sqlite":
        yield
        return
    former, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
    try:
        yield
    finally:
        connection.transaction_mode = former


def _locked() -> DjangoOperationalError:
    cause = sqlite3.OperationalError("database is locked")
    cause.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error = DjangoOperationalError(*cause.args)
    error.__cause__ = cause
    return error


def _read_committed() -> Any:
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    return IsolationLevel.READ_COMMITTED


def _in_memory(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.is_in_memory_db())  # type: ignore[attr-defined]


def _place(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    where = (str(connection.settings_dict[name] or "") for name in ("HOST", "PORT", "NAME"))
    return (connection.vendor, *where)
