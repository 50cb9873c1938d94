"""Transactions for programs that have none of their own, on any executor."""

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
    """A transaction of the program's on Thorn's database, which `within=` takes.

    Args:
        executor: Whose database it is in.
        connection: What it runs on.
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
        """Where its database is."""
        return self.executor.place

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement of the program's and give back its rows.

        Args:
            sql: The statement, in the driver's notation; savepoints are made by `savepoint`.
            params: Its parameters, `?` in a statement on SQLite.

        Raises:
            Exception: The database can't do it; the error is the driver's own.
        """
        return self._connection.execute(sql, params)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the block's changes, sent events included, if it raises."""
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
        """Call back once the transaction has committed."""
        self._callbacks.append(callback)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the transaction, in a thread."""
        return await asyncio.to_thread(function)

    def lend(self) -> Connection:
        """The connection, for what the store writes in this transaction.

        Raises:
            ConfigurationError: The transaction is over.
        """
        if not self.open:
            raise ConfigurationError(
                "the transaction given as within= is over; send inside of its block, or without"
                " within"
            )
        return self._connection

    def committed(self) -> None:
        """Call those back that wait for the commit; what they raise is logged."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                logger.exception("an after-commit callback failed")


def borrow(executor: Executor, unit: UnitOfWork) -> Connection | None:
    """The connection of a transaction that `begin` gave; None if it isn't this executor's.

    Raises:
        ConfigurationError: The transaction is over.
    """
    if isinstance(unit, Transaction) and unit.executor is executor:
        return unit.lend()
    return None


@contextlib.contextmanager
def begin(executor: Executor) -> Iterator[Transaction]:
    """A transaction of the program's; it commits at the end, or rolls back if that raises.

    Args:
        executor: Whose transaction it is, on its own connection.

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
    # Only now the connection, and its locks, are free for what follows.
    transaction.committed()
