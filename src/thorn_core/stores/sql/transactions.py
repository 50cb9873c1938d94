"""Transactions on any executor, for programs without their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from thorn_core.errors import ConfigurationError
from thorn_core.ports.executor import Connection, Executor
from thorn_core.ports.unit_of_work import UnitOfWork

logger = logging.getLogger(__name__)
T = TypeVar("T")
Callback = Callable[[], None]


class Transaction:
    """A program's transaction on Thorn's database, for `within=`.

    Args:
        executor: The executor of the transaction's database.
        connection: The transaction's connection.
    """

    def __init__(self, executor: Executor, connection: Connection) -> None:
        self.executor = executor
        self.open = True
        self._connection = connection
        self._callbacks: list[Callback] = []

    @property
    def handle(self) -> Transaction:
        """The transaction itself."""
        return self

    @property
    def place(self) -> str:
        """The location of the transaction's database."""
        return self.executor.place

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement of the program and return its rows.

        Args:
            sql: The statement in the driver's notation; use `savepoint` for savepoints.
            params: The parameters; SQLite's placeholder is `?`.

        Raises:
            Exception: The driver's error.
        """
        return self._connection.execute(sql, params)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the block's changes, sent events included, on an exception."""
        mark = len(self._callbacks)
        self.execute("SAVEPOINT thorn")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO SAVEPOINT thorn")
            self.execute("RELEASE SAVEPOINT thorn")
            del self._callbacks[mark:]
            raise
        self.execute("RELEASE SAVEPOINT thorn")

    def on_commit(self, callback: Callback) -> None:
        """Call a function after the commit."""
        self._callbacks.append(callback)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the transaction, in a thread."""
        return await asyncio.to_thread(function)

    def lend(self) -> Connection:
        """Return the connection for the store's writes in this transaction.

        Raises:
            ConfigurationError: The transaction has ended.
        """
        if not self.open:
            raise ConfigurationError(
                "the transaction given as within= has ended; send inside its block, or without"
                " within"
            )
        return self._connection

    def committed(self) -> None:
        """Call the functions that wait for the commit; log their exceptions."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                logger.exception("an after-commit callback failed")


def borrow(executor: Executor, unit: UnitOfWork) -> Connection | None:
    """Return the connection of a transaction from `begin`; None if it isn't this executor's.

    Raises:
        ConfigurationError: The transaction has ended.
    """
    if isinstance(unit, Transaction) and unit.executor is executor:
        return unit.lend()
    return None


@contextlib.contextmanager
def begin(executor: Executor) -> Iterator[Transaction]:
    """Open a transaction for a program: commit at the end, roll back on an exception.

    Args:
        executor: Opens the transaction on one of its connections.

    Example:
        >>> from thorn_core.stores.sql import SqliteExecutor
        >>> executor = SqliteExecutor("sqlite://")
        >>> with begin(executor) as transaction:
        ...     transaction.execute("SELECT 1 + ?", [1])
        [(2,)]
        >>> executor.close()
    """
    with executor.transaction() as connection:
        transaction = Transaction(executor, connection)
        try:
            yield transaction
        finally:
            transaction.open = False
    # The connection and its locks are free only from here on.
    transaction.committed()
