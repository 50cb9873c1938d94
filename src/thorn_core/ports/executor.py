"""The executor port: runs the SQL store's statements on a library's connections."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from thorn_core.ports.tables import Column
from thorn_core.ports.unit_of_work import UnitOfWork


class Failure(enum.Enum):
    """The meaning of a database error for the store.

    `RETRY`: a deadlock, a serialization failure or a lock time-out. `LOST`: the connection broke,
    and the outcome of a commit is unknown. `DUPLICATE`: a key already exists. `DATA`: the database
    can't store a value. `TOO_LARGE`: the statement or a value is too large. `MISSING`: a table or
    column doesn't exist. `READ_ONLY` and `FULL`: the database accepts no writes now.
    """

    RETRY = "retry"
    LOST = "lost"
    DUPLICATE = "duplicate"
    DATA = "data"
    TOO_LARGE = "too large"
    MISSING = "missing"
    READ_ONLY = "read only"
    FULL = "full"
    OTHER = "other"


@runtime_checkable
class Connection(Protocol):
    """A connection in a transaction; one thread uses it at a time.

    Rows are tuples. Binary values are `bytes`, whatever the driver returns. Errors are the
    library's own; `Executor.classify` maps them to a `Failure`.
    """

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; an empty list if it returns none.

        Args:
            sql: The statement.
            params: Values; on PostgreSQL, lists too, for arrays.
        """
        ...

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it matched; don't count duplicates."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        ...

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows in the fastest way: COPY, or INSERTs of many rows.

        Args:
            table: The table's name, quoted and qualified for the database.
            columns: The columns of the rows.
            rows: Tuples in the order of the columns. Their keys must be new.
        """
        ...


@runtime_checkable
class Executor(Protocol):
    """Lends connections to the SQL store.

    Attributes:
        dialect: `postgresql`, `mysql` (MariaDB too) or `sqlite`.
        placeholder: The notation of a parameter: `%s`, `?`, or `$` for `$1`, `$2` …
        embedded: True if only this process can use the database, such as SQLite in memory.
        creates: True if the store creates its tables at first use, such as in a SQLite file.
        place: The database's location for messages, without a password.
        way_out: The command that creates the tables, for messages.
    """

    dialect: str
    placeholder: str
    embedded: bool
    creates: bool
    place: str
    way_out: str

    @property
    def max_bytes(self) -> int:
        """The maximum size of a statement in bytes."""
        ...

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """Open a transaction of the store's own: commit at the end, roll back on an exception.

        The transaction has begun in the database (on SQLite: IMMEDIATE), is READ COMMITTED, and
        limits the time for locks and statements.

        Args:
            durable: False if a power failure may undo the whole transaction.
        """
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection for SELECTs; it takes no locks."""
        ...

    def borrow(self, unit: UnitOfWork) -> Connection | None:
        """Return the caller's connection if its transaction is in this database, else None.

        The store calls only `execute` and `change` on it.

        Raises:
            ConfigurationError: The transaction has ended, or this thread can't use it.
        """
        ...

    def classify(self, error: BaseException) -> Failure | None:
        """Return the meaning of a database error, or None for any other error."""
        ...

    def begin(self) -> AbstractContextManager[Any]:
        """Open a transaction for a program without its own: commit at the end.

        The program passes the result as `within=` and can run its own statements on it.
        """
        ...

    def listening(self, channel: str) -> AbstractContextManager[Any] | None:
        """Open a connection that listens to a PostgreSQL channel; None if the store must poll.

        The context manager yields psycopg's or psycopg2's connection and closes it at the end.
        """
        ...

    def before_fork(self) -> None:
        """Close connections that a child can't share; called before a fork."""
        ...

    def after_fork(self) -> None:
        """Forget the connections without closing them; called in a forked child."""
        ...

    def close(self) -> None:
        """Close the executor's own connections; calling it twice is safe."""
        ...
