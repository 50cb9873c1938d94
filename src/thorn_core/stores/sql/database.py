"""The database as the store's parts see it: transactions that are tried again, and its tables."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from thorn_core.errors import StoreError, StoreSetupError
from thorn_core.ports.executor import Connection, Executor, Failure
from thorn_core.stores.redaction import redact
from thorn_core.stores.sql import setup
from thorn_core.stores.sql.schema import PREFIX
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import SQLITE, Wording

T = TypeVar("T")

# A transaction that meets another's is tried so often, and for no longer than these seconds.
TRIES = 5
TRIED_FOR = 10.0
PASSING = (Failure.RETRY, Failure.LOST, Failure.DUPLICATE)


class Database:
    """Where the store's tables are.

    Args:
        executor: Lends the connections.
        wording: The database's words.
    """

    def __init__(self, executor: Executor, wording: Wording) -> None:
        self.executor, self.wording = executor, wording
        self._schema = wording.schema
        self._created = not executor.creates
        if wording.dialect == SQLITE:
            self._locate("main")

    # -- work

    def run(self, work: Callable[[Statements], T], *, durable: bool = True) -> T:
        """Do some work in a transaction of its own, again if it met another's or lost its way.

        Args:
            work: What to do; it may be called several times.
            durable: False for a worker's bookkeeping, which a power failure may take back: what was
                delivered is then delivered again.

        Raises:
            StoreError: The database can't do it.
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
                if left and failure in PASSING and time.monotonic() < until:
                    time.sleep(random.uniform(0.001, 0.02) * (TRIES - left))  # noqa: S311
                    continue
                raise self.translated(error, failure) from error
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Statements], T]) -> T:
        """Do some reading, again if the connection was lost.

        Raises:
            StoreError: The database can't do it.
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
        """Do some work in the caller's transaction, once.

        Raises:
            StoreError: The database can't do it.
        """
        with self.translating():
            self.locate()
            statements = Statements(connection, self.wording)
            if not self._created and not setup.begun(statements):
                # If the caller rolls back, they are gone again. A driver that begins the
                # transaction with the first INSERT would keep the tables, without their version.
                connection.execute("SAVEPOINT thorn_tables")
                setup.create(statements, self.executor.place)
                connection.execute("RELEASE thorn_tables")
            return work(statements)

    # -- tables

    def create(self) -> str | None:
        """Create the tables that aren't there.

        Returns:
            The version of the schema that was there before; None if there was none.

        Raises:
            StoreSetupError: There are tables that this version doesn't fit.
            StoreError: The database can't do it.
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
        """Create the tables of a database that nobody else creates them in."""
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
        """Find the schema of the tables, if it wasn't given: that of the store's own connections.

        A caller's may have another one, such as a tenant's.
        """
        if self.wording.schema is None:
            with self.executor.reading() as connection:
                ((schema,),) = connection.execute(self.wording.current_schema)
            self._locate(schema)

    def _locate(self, schema: str | None) -> None:
        if self._schema is None:
            self.wording = self.wording.in_schema(schema)

    def script(self) -> str:
        """The statements that create the tables in the schema that was given, if one was."""
        return setup.script(self.wording.in_schema(self._schema))

    def check(self) -> None:
        """See that the tables are there and are those of this version.

        Raises:
            StoreSetupError: They aren't.
            StoreError: The database can't be asked.
        """
        wrong = self.read(self._wrong)
        if wrong is not None:
            raise StoreSetupError(wrong)

    def _wrong(self, statements: Statements) -> str | None:
        default = self.wording.prefix == PREFIX and not self._schema
        # A URL tells neither prefix nor schema; an app's store has its own.
        way_out = self.executor.way_out if default else "thorn --app module:attribute init-db"
        return setup.wrong_with(statements, self.executor.place, way_out)

    # -- what goes wrong

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise the database's errors inside as StoreError.

        Raises:
            StoreError: There was one.
        """
        try:
            yield
        except Exception as error:
            failure = self.executor.classify(error)
            if failure is None:
                raise
            raise self.translated(error, failure) from error

    def translated(self, error: Exception, failure: Failure) -> StoreError:
        """An error in words that say what to do; it shows no parameters."""
        redact(error)
        where = f"the database {self.executor.place}"
        said = str(getattr(error, "orig", None) or error) or type(error).__name__
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
        return StoreError(f"{where} can't do it: {said}")

    # -- life

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self.executor.after_fork()
        self._created = not self.executor.creates
