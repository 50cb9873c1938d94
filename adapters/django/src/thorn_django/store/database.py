"""A database: its connections, transactions that are tried again, and what its errors mean.

Django gives each thread a connection. The store works on that one while a transaction is open on
it, which its work then belongs to, or while it is open at all: a web process needs no second one.
Else, as in the engine's threads, it works on connections of its own, of which a few are kept.
Whichever it is, it is Django's connection of that thread while the work goes on, so that the ORM
finds it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.apps import apps
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, IntegrityError, InterfaceError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from thorn_core import ConfigurationError, StoreError, StoreSetupError
from thorn_core.stores import redact
from thorn_django.store.statements import columns_of
from thorn_django.unit_of_work import in_transaction

T = TypeVar("T")
Work = Callable[[BaseDatabaseWrapper], T]

# Of a transaction that met another's: deadlock, serialization failure, lock not had in time.
TRIES = 5
CONFLICTS = {"40001", "40P01", "55P03", 1020, 1205, 1213}
# Of MySQL's drivers, one of which connects again by itself, without Django's settings.
LOST = {2006, 2013, 2014, 2045, 2055, 4031}
# Seconds that SQLite waits for another writer. After as long nothing is tried again: who holds a
# lock until then has stopped.
BUSY_TIMEOUT = 10
# SQLite's words for it.
NORMAL, FULL = 1, 2
# Connections kept: the engine's threads', and one for notifications.
KEPT = 5
# Seconds until one is replaced by another, as proxies and firewalls do it less politely.
MAX_AGE = 3600
# Connections of a parent process: a driver that closed them here would close the parent's.
_inherited: list[BaseDatabaseWrapper] = []


class Database:
    """One of Django's databases.

    Args:
        alias: Which.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._idle: list[BaseDatabaseWrapper] = []
        # How those of a SQLite database in WAL mode wait for the disk.
        self._levels: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._turn = self._make_turn()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Database {self.alias}>"

    @property
    def vendor(self) -> str:
        """`postgresql`, `mysql` (MariaDB too) or `sqlite`."""
        return connections[self.alias].vendor

    def same_as(self, alias: str) -> bool:
        """True if another alias goes to the same database: its transactions can hold rows, too."""
        mine, other = connections[self.alias], connections[alias]
        if alias == self.alias:
            return True
        if ":memory:" in str(mine.settings_dict["NAME"]):
            return False
        return _place(mine) == _place(other)

    # -- work

    def transaction(self) -> BaseDatabaseWrapper | None:
        """The calling thread's connection, if a transaction is open on it."""
        connection = connections[self.alias]
        return connection if in_transaction(connection) else None

    def run(self, work: Work[T], *, lasting: bool = True, apart: bool = False) -> T:
        """Do some work in the transaction that is open in this thread; else in one of its own.

        Args:
            work: Gets the connection. In a transaction of its own it is called again after a
                deadlock, and if the connection is found to be broken.
            lasting: False for a worker's bookkeeping, which a power failure may take back: what
                was delivered is then delivered again. On SQLite it needn't wait for the disk.
            apart: True leaves the transaction that is open alone; but for SQLite, where that would
                wait for itself.

        Raises:
            StoreError: The database can't do it.
            ConfigurationError: This is an event loop's thread.
        """

        def in_transaction_of_its_own(connection: BaseDatabaseWrapper) -> T:
            with self._turn:
                self._syncs(connection, lasting=lasting)
                with _writing(connection, self.alias):
                    return work(connection)

        if apart and self.transaction() is not None and self.vendor != "sqlite":
            return self._alone(in_transaction_of_its_own, self._ours)

        def in_the_open_one(connection: BaseDatabaseWrapper) -> T:
            # All of it or nothing, whatever the transaction's owner does about an error.
            with transaction.atomic(using=self.alias):
                return work(connection)

        return self._work(in_the_open_one, in_transaction_of_its_own)

    def read(self, work: Work[T]) -> T:
        """Do some reading; as `run`, but without a lock on a SQLite file.

        Raises:
            StoreError: The database can't do it.
            ConfigurationError: This is an event loop's thread.
        """
        return self._work(work, work)

    def _work(self, within: Work[T], alone: Work[T]) -> T:
        open_one = self.transaction()
        if open_one is None:
            return self._alone(alone, self._at_hand)
        with self.translating():
            return within(open_one)

    def _alone(
        self,
        work: Work[T],
        connected: Callable[[], contextlib.AbstractContextManager[BaseDatabaseWrapper]],
    ) -> T:
        until = time.monotonic() + BUSY_TIMEOUT
        for left in reversed(range(TRIES)):
            lost = _Lost()
            try:
                with connected() as connection, lost.looking(connection):
                    return work(connection)
            except Error as error:
                if lost:
                    # Those kept are no better, then.
                    self._drop(self._idle)
                if left and (lost or _passing(error)) and time.monotonic() < until:
                    time.sleep(random.uniform(0.001, 0.02) * (TRIES - left))  # noqa: S311
                    continue
                raise self.translated(error) from error
            except SynchronousOnlyOperation as error:
                raise _in_a_loop() from error
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _at_hand(self) -> Iterator[BaseDatabaseWrapper]:
        """The thread's connection, if it is open; else one of ours in its place."""
        theirs = connections[self.alias]
        if theirs.connection is not None:
            yield theirs
        else:
            with self._ours() as ours:
                yield ours

    @contextlib.contextmanager
    def _ours(self) -> Iterator[BaseDatabaseWrapper]:
        """One of ours in the place of the thread's connection."""
        theirs, ours = connections[self.alias], self._take()
        connections[self.alias] = ours
        try:
            if ours.connection is None:
                ours.ensure_connection()
                self._opened(ours)
            yield ours
        finally:
            connections[self.alias] = theirs
            self._put(ours)

    def insert_within(
        self, connection: BaseDatabaseWrapper, insert: Callable[[BaseDatabaseWrapper], T]
    ) -> T:
        """Insert rows in the transaction that is open on a connection.

        Raises:
            StoreError: The database can't do it.
        """
        try:
            with self.translating():
                return insert(connection)
        except StoreError as error:
            if connection.vendor == "postgresql" and connection.in_atomic_block:
                # The transaction is lost, whoever catches this; Django is to say so.
                connection.set_rollback(True)
                connection.rollback_exc = error  # type: ignore[attr-defined]
            raise

    @contextlib.contextmanager
    def atomic(self) -> Iterator[None]:
        """A transaction on the thread's connection, a savepoint if one is open.

        Raises:
            StoreError: The database can't begin it.
        """
        connection = connections[self.alias]
        with contextlib.ExitStack() as stack:
            with self.translating():
                connection.ensure_connection()
                stack.enter_context(_writing(connection, self.alias))
            yield

    # -- connections of its own

    def _take(self) -> BaseDatabaseWrapper:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is None:
            return self.connection()
        if kept.settings_dict["NAME"] != connections[self.alias].settings_dict["NAME"]:
            # Tests work on another database of the same alias.
            self._drop([kept])
            return self.connection()
        kept.close_if_unusable_or_obsolete()
        return kept

    def _put(self, connection: BaseDatabaseWrapper) -> None:
        # With DEBUG they would hold thousands of payloads.
        connection.queries_log.clear()
        with self._lock:
            kept = not self._closed and connection.connection is not None and len(self._idle) < KEPT
            if kept:
                self._idle.append(connection)
        if not kept:
            self._drop([connection])

    def connection(self) -> BaseDatabaseWrapper:
        """Another connection, not open yet, that is the caller's to close; any thread may use it.

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
            options["timeout"] = max(options.get("timeout", 0), BUSY_TIMEOUT)
        elif connection.vendor == "mysql":
            options["isolation_level"] = "read committed"
        elif connection.vendor == "postgresql":
            from django.db.backends.postgresql.psycopg_any import IsolationLevel

            options["isolation_level"] = IsolationLevel.READ_COMMITTED
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
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
                level = cursor.execute("PRAGMA synchronous").fetchone()[0]
            if (journal, level) == ("wal", FULL):
                self._levels[connection] = level

    def _syncs(self, connection: BaseDatabaseWrapper, *, lasting: bool) -> None:
        """Let what follows wait for the disk, or not; other journals than WAL always do."""
        wanted = FULL if lasting else NORMAL
        if self._levels.get(connection, wanted) != wanted:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA synchronous = {wanted}")
            self._levels[connection] = wanted

    def _drop(self, dropped: list[BaseDatabaseWrapper]) -> None:
        with self._lock:
            closing = list(dropped)
            dropped.clear()
        for connection in closing:
            with contextlib.suppress(Error):
                # SQLite's own way leaves a database in memory open, for others to find it again.
                BaseDatabaseWrapper.close(connection)

    def _make_turn(self) -> contextlib.AbstractContextManager[Any]:
        """SQLite lets one write; who waits for it looks again ever less often, so we queue here."""
        return threading.Lock() if self.vendor == "sqlite" else contextlib.nullcontext()

    # -- what goes wrong

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise what goes wrong inside as StoreError.

        Raises:
            StoreError: Something did.
            TransactionManagementError: The transaction was broken before.
            ConfigurationError: This is an event loop's thread.
        """
        try:
            yield
        except transaction.TransactionManagementError:
            raise
        except Error as error:
            raise self.translated(error) from error
        except SynchronousOnlyOperation as error:
            raise _in_a_loop() from error

    def translated(self, error: Error) -> StoreError:
        """An error in words that say what to do."""
        where = f"the database {self.alias!r}"
        redact(error)
        said = str(error) or type(error).__name__
        lowered = said.lower()
        if any(words in lowered for words in ("readonly database", "read-only", "read only")):
            return StoreError(f"{where} is read-only: {said}")
        if any(words in lowered for words in ("database or disk is full", "no space left")):
            return StoreError(f"{where} is full: {said}")
        if any(words in lowered for words in _MISSING) and self.transaction() is None:
            with contextlib.suppress(Error), self._at_hand() as connection:
                wrong = wrong_with(connection, all_models())
                if wrong is not None:
                    return StoreSetupError(wrong)
        elif any(words in lowered for words in _MISSING):
            return StoreSetupError(
                f"{where} lacks a table or column: {said}; {_way_out(self.alias)}"
            )
        return StoreError(f"{where} can't do it: {said}")

    def check(self) -> None:
        """See that the tables are there and have the columns that they need.

        Raises:
            StoreSetupError: They aren't.
            StoreError: The database can't be asked.
        """
        wrong = self.read(lambda connection: wrong_with(connection, all_models()))
        if wrong is not None:
            raise StoreSetupError(wrong)

    # -- life

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to SQLite."""
        if self.vendor == "sqlite":
            self._drop(self._idle)

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        _inherited.extend(self._idle)
        self._idle = []
        self._lock = threading.Lock()
        self._turn = self._make_turn()

    def close(self) -> None:
        """Close the connections that are kept, and keep none from now on."""
        self._closed = True
        self._drop(self._idle)


@contextlib.contextmanager
def _writing(connection: BaseDatabaseWrapper, alias: str) -> Iterator[None]:
    """A transaction that writes, from its beginning on."""
    atomic = transaction.atomic(using=alias)
    if connection.vendor != "sqlite":
        with atomic:
            yield
        return
    former: Any = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]
    try:
        atomic.__enter__()
    finally:
        connection.transaction_mode = former  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        stack.push(atomic.__exit__)
        yield


def _place(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    where = (str(connection.settings_dict[name] or "") for name in ("HOST", "PORT", "NAME"))
    return (connection.vendor, *where)


def wrong_with(connection: BaseDatabaseWrapper, needed: Sequence[type[Model]]) -> str | None:
    """What is wrong with tables in a database, and the way out; None if nothing is.

    Args:
        connection: To the database.
        needed: The models that it needs the tables of.
    """
    where = f"the database {connection.alias!r}"
    asked = connection.introspection
    with connection.cursor() as cursor:
        there = set(asked.table_names(cursor))
        missing = sorted(m._meta.db_table for m in needed if m._meta.db_table not in there)
        if missing:
            return f"{where} has no table {', '.join(missing)}; {_way_out(connection.alias)}"
        for model in needed:
            table = model._meta.db_table
            columns = {column.name for column in asked.get_table_description(cursor, table)}
            lacking = [column for column in columns_of(model) if column not in columns]
            if lacking:
                return (
                    f"the table {table} in {where} has no column {', '.join(lacking)}: it belongs"
                    f" to an older version; {_way_out(connection.alias)}"
                )
    return None


def all_models() -> list[type[Model]]:
    """The models of what a store keeps."""
    from thorn_django.store.subscriptions import subscription_model

    ours = apps.get_app_config("thorn_django").get_models()
    return list(dict.fromkeys((*ours, subscription_model())))


def _way_out(alias: str) -> str:
    database = "" if alias == "default" else f" --database {alias}"
    return f"run: manage.py migrate{database}"


_MISSING = ("no such table", "no such column", "has no column", "doesn't exist", "does not exist",
            "unknown column")  # fmt: skip


class _Lost:
    """Whether a connection was found to be broken."""

    def __init__(self) -> None:
        self._lost = False

    def __bool__(self) -> bool:
        return self._lost

    @contextlib.contextmanager
    def looking(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        before = connection.connection
        try:
            yield
        except Error as error:
            self._lost = (
                isinstance(error, InterfaceError)
                or _code(error) in LOST
                # At the end of a transaction Django replaces what is broken, without a word.
                or connection.connection is not before
                or not connection.is_usable()
            )
            if self._lost:
                connection.close()
            raise


def _passing(error: Error) -> bool:
    """True if the same may well succeed a moment later."""
    # Two that insert the same row at once: the second finds it the next time.
    conflict = isinstance(error, IntegrityError) or _code(error) in CONFLICTS
    return conflict or "locked" in str(error)


def _code(error: Error) -> Any:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return error.args[0] if code is None and error.args else code


def _in_a_loop() -> ConfigurationError:
    return ConfigurationError(
        "Django's database can't be used in an event loop's thread; use: await event.asend(…), and"
        " await asyncio.to_thread(…) for everything else"
    )
