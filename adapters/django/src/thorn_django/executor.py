"""The executor on Django's databases.

Django gives each thread a connection. The store uses that connection if it is open, and takes part
in its open transaction: a web process needs no second connection. Otherwise, such as in the
engine's threads, the store uses its own connections and keeps a few of them.
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
# SQLite's limit is fixed at compile time; PostgreSQL limits a message.
MAX_BYTES = 1_000_000_000
# Marks an error in the program's transaction: only the program can retry it.
JOINED = "_thorn_joined"


class DjangoExecutor:
    """Lends connections to one of Django's databases to the SQL store.

    Args:
        alias: The alias of the database.

    Raises:
        ConfigurationError: The alias is unknown, or Thorn doesn't support the database.

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
        """The maximum size of a statement in bytes."""
        if self._max_bytes is None:
            with self.reading() as connection, connection.wrapper.cursor() as cursor:
                self._max_bytes = max_allowed_packet(cursor)
        return self._max_bytes

    # -- connections

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[DjangoConnection]:
        """Open a transaction of the store, or a savepoint in this thread's open transaction.

        Args:
            durable: If False, commit to a SQLite file without waiting for the disk.
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
        """Open a connection for SELECTs: that of this thread's open transaction, or any."""
        theirs = connections[self.alias]
        if in_transaction(theirs) and not self._apart:
            with self._joined():
                yield DjangoConnection(theirs)
            return
        # Connections to one database in memory lock whole tables, without a time-out.
        needed = self.dialect == "sqlite" and _in_memory(theirs)
        with self._turn(needed=needed), self._at_hand() as connection:
            yield DjangoConnection(connection)

    @property
    def _apart(self) -> bool:
        return getattr(self._here, "apart", False)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Use other connections than this thread's open transaction inside the block.

        On SQLite, a second transaction would wait for the first, so the block uses the same one.
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
        """Yield the thread's connection if it is open and free, else one of the store's own."""
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
                    # The kept connections are broken, too.
                    connection.close()
                    self.own.drop()
                raise

    @contextlib.contextmanager
    def _begin_on(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """Begin a READ COMMITTED transaction that can write from the start."""
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
        """Open a transaction or savepoint on the thread's connection; yield its alias."""
        connection = connections[self.alias]
        with contextlib.ExitStack() as stack:
            with off_loop():
                connection.ensure_connection()
            with _immediate(connection):
                stack.enter_context(transaction.atomic(using=self.alias))
            yield self.alias

    def borrow(self, unit: UnitOfWork) -> DjangoConnection | None:
        """Return the connection of this thread's open transaction, if it is in this database.

        A Django unit of work never ends: without a transaction it takes effect at once.
        """
        if not isinstance(unit, DjangoUnitOfWork):
            return None
        connection = unit.connection()
        if connection is None or not self.same_as(connection.alias):
            return None
        return DjangoConnection(connection, borrowed=True)

    def same_as(self, alias: str) -> bool:
        """Return True if another alias uses this database, so its transactions can hold rows."""
        mine, other = connections[self.alias], connections[alias]
        if alias == self.alias:
            return True
        if self.dialect == "sqlite" and _in_memory(mine):
            return False
        return _place(mine) == _place(other)

    def listening(self, channel: str) -> contextlib.AbstractContextManager[Any] | None:
        """Open a connection that listens to a channel; yield None except on PostgreSQL."""
        return self._listening(channel) if self.dialect == "postgresql" else None

    @contextlib.contextmanager
    def _listening(self, channel: str) -> Iterator[Any]:
        with contextlib.closing(self.own.new()) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                if cursor.fetchone()[0] != connection.connection.info.backend_pid:
                    # PgBouncer reports no real process id.
                    raise StoreSetupError(f"{self.place} is a pooler's URL; poolers can't listen")
                cursor.execute(f'LISTEN "{channel}"')
            yield connection.connection

    @contextlib.contextmanager
    def _turn(self, *, needed: bool) -> Iterator[None]:
        """Lock for a write: SQLite allows one writer and lets others poll at growing intervals."""
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

    # -- errors

    def classify(self, error: BaseException) -> Failure | None:
        """Return the meaning of an error of Django's database layer; None for any other error.

        The store doesn't handle a transaction that was already broken.
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
            # Server errors have a code; this is an error of the connection.
            return Failure.LOST
        return Failure.OTHER

    # -- life cycle

    def before_fork(self) -> None:
        """Close idle connections to SQLite; called before a fork."""
        if self.dialect == "sqlite":
            self.own.drop()

    def after_fork(self) -> None:
        """Leave the connections to the parent; called in a forked child."""
        self.own.forget()
        self._here = threading.local()
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close the store's own connections, and keep none from now on."""
        self.own.close()


@contextlib.contextmanager
def _immediate(connection: Any) -> Iterator[None]:
    """Begin SQLite transactions as a writer: a reader can't write after another's commit."""
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
