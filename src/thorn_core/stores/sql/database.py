"""The database of the SQL store: its transactions with retries, and its tables."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from thorn_core.errors import StoreDataError, StoreError, StoreSetupError
from thorn_core.ports.executor import Connection, Executor, Failure
from thorn_core.stores.redaction import redact
from thorn_core.stores.sql import setup
from thorn_core.stores.sql.failures import missing_database, remedy_of
from thorn_core.stores.sql.schema import PREFIX
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import SQLITE, Wording

T = TypeVar("T")

# Limits on retries after a conflict with another transaction: number, and seconds.
TRIES = 5
TRIED_FOR = 10.0
PASSING = (Failure.RETRY, Failure.LOST, Failure.DUPLICATE)


class Database:
    """The database that holds the store's tables.

    Args:
        executor: Lends the connections.
        wording: The database's SQL dialect.
    """

    def __init__(self, executor: Executor, wording: Wording) -> None:
        self.executor, self.wording = executor, wording
        self._schema = wording.schema
        self._created = not executor.creates
        if wording.dialect == SQLITE:
            self._locate("main")

    # -- transactions

    def run(
        self,
        work: Callable[[Statements], T],
        *,
        careful: Callable[[Statements], T] | None = None,
        durable: bool = True,
    ) -> T:
        """Call `work` in a new transaction; retry after a conflict or a lost connection.

        Args:
            work: The function; retries call it again.
            careful: Called instead after a duplicate key.
            durable: False for a worker's records. A power failure may undo them, and the worker
                then repeats the deliveries.

        Raises:
            StoreError: The database reports an error.
        """
        until = time.monotonic() + TRIED_FOR
        for left in reversed(range(TRIES)):
            try:
                self.prepare()
                with self.executor.transaction(durable=durable) as connection:
                    return work(Statements(connection, self.wording))
            except Exception as error:
                failure = self.executor.classify(error)
                if failure is None:
                    raise
                if failure is Failure.DUPLICATE and careful is not None:
                    work = careful
                if left and failure in PASSING and time.monotonic() < until:
                    time.sleep(random.uniform(0.001, 0.02) * (TRIES - left))  # noqa: S311
                    continue
                raise self.translated(error, failure) from error
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Statements], T]) -> T:
        """Call `work` on a reading connection; retry if the connection was lost.

        Raises:
            StoreError: The database reports an error.
        """
        for left in (True, False):
            try:
                self.prepare()
                with self.executor.reading() as connection:
                    return work(Statements(connection, self.wording))
            except Exception as error:
                failure = self.executor.classify(error)
                if failure is None:
                    raise
                if not (left and failure is Failure.LOST):
                    raise self.translated(error, failure) from error
        raise AssertionError("unreachable")

    def within(self, connection: Connection, work: Callable[[Statements], T]) -> T:
        """Call `work` in the caller's transaction, without retries.

        Raises:
            StoreError: The database reports an error.
        """
        with self.translating():
            self.locate()
            statements = Statements(connection, self.wording)
            if not self._created and not setup.begun(statements):
                # If the caller rolls back, the tables disappear again. A driver that begins the
                # transaction with the first INSERT would keep the tables, without their version.
                connection.execute("SAVEPOINT thorn_tables")
                setup.create(statements, self.executor.place)
                connection.execute("RELEASE thorn_tables")
            return work(statements)

    # -- tables

    def create(self) -> str | None:
        """Create missing tables.

        Returns:
            The previous version of the schema, or None if there was none.

        Raises:
            StoreSetupError: Existing tables don't fit this version.
            StoreError: The database reports an error.
        """
        with self.translating():
            return self._create()

    def _create(self) -> str | None:
        self.locate()
        with self.executor.transaction() as connection:
            before = setup.create(Statements(connection, self.wording), self.executor.place)
        self._created = True
        return before

    def prepare(self) -> None:
        """Create the tables if nothing else does, such as in a SQLite file."""
        self.locate()
        if self._created:
            return
        with self.executor.reading() as connection:
            there = setup.begun(Statements(connection, self.wording))
        if there:
            self._created = True
        else:
            self._create()

    def locate(self) -> None:
        """Set the schema of the tables, if not given, to that of the store's own connections.

        A caller's connection may use another schema, such as a tenant's.
        """
        if self.wording.schema is None:
            with self.executor.reading() as connection:
                ((schema,),) = connection.execute(self.wording.current_schema)
            self._locate(schema)

    def _locate(self, schema: str | None) -> None:
        if self._schema is None:
            self.wording = self.wording.in_schema(schema)

    def script(self) -> str:
        """Return the SQL that creates the tables in the configured schema."""
        return setup.script(self.wording.in_schema(self._schema))

    def check(self) -> None:
        """Check that the tables exist and have this version.

        Raises:
            StoreSetupError: The tables are missing or have another version.
            StoreError: The database doesn't respond.
        """
        wrong = self.read(self._wrong)
        if wrong is not None:
            raise StoreSetupError(wrong)

    def _wrong(self, statements: Statements) -> str | None:
        return setup.wrong_with(statements, self.executor.place, self._way_out())

    def _way_out(self) -> str:
        default = self.wording.prefix == PREFIX and not self._schema
        # A URL lacks prefix and schema; the app's store has them.
        return self.executor.way_out if default else "thorn --app module:attribute init-db"

    # -- errors

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise the database's errors inside the block as StoreError.

        Raises:
            StoreError: The database reported an error.
        """
        try:
            yield
        except Exception as error:
            failure = self.executor.classify(error)
            if failure is None:
                raise
            raise self.translated(error, failure) from error

    def translated(self, error: Exception, failure: Failure) -> StoreError:
        """Return a StoreError with advice and without parameters."""
        redact(error)
        where = f"the database {self.executor.place}"
        said = str(getattr(error, "orig", None) or error) or type(error).__name__
        missing = missing_database(said)
        if missing is not None:
            return StoreSetupError(
                f"the database {missing!r} does not exist; create it, then run: {self._way_out()}"
            )
        match failure:
            case Failure.READ_ONLY:
                return StoreError(f"{where} is read-only: {said}")
            case Failure.FULL:
                return StoreError(f"{where} is full: {said}")
            case Failure.MISSING:
                with contextlib.suppress(Exception), self.executor.reading() as connection:
                    wrong = self._wrong(Statements(connection, self.wording))
                    if wrong is not None:
                        return StoreSetupError(wrong)
                return StoreSetupError(
                    f"{where} lacks a table or column: {said}; run: {self.executor.way_out}"
                )
        remedy = remedy_of(said)
        if remedy is not None:
            said = f"{said.rstrip('.?')}; {remedy}"
        if failure in (Failure.DATA, Failure.TOO_LARGE):
            return StoreDataError(f"{where} can't hold a value: {said}")
        return StoreError(f"{where} can't be used: {said}")

    # -- life cycle

    def after_fork(self) -> None:
        """Leave the connections to the parent; called in a forked child."""
        self.executor.after_fork()
        self._created = not self.executor.creates
