"""The executor port: runs the SQL store's statements on connections of some library's."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from thorn_core.ports.tables import Column
from thorn_core.ports.unit_of_work import UnitOfWork


class Failure(enum.Enum):
    """What a database's error means to the store.

    `RETRY`: a deadlock, a serialization failure, a lock not had in time. `LOST`: the connection is
    gone, and the outcome of a commit unknown. `DUPLICATE`: a key is taken. `DATA`: a value that
    can't be stored. `TOO_LARGE`: the statement or a value is. `MISSING`: a table or column isn't
    there. `READ_ONLY` and `FULL`: nothing can be written now.
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

    Rows are tuples. Bytes come back as `bytes`, whatever the driver gives. Errors are the library's
    own; `Executor.classify` says what they mean.
    """

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and give back its rows; none where it has none.

        Args:
            sql: The statement.
            params: Values; on PostgreSQL, lists too, for arrays.
        """
        ...

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and say how many rows it matched; never tells duplicates."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        ...

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows by the fastest way there is: COPY, or statements of many rows.

        Args:
            table: Its name, quoted and qualified as the database wants it.
            columns: What the rows hold.
            rows: Tuples in the order of the columns. No key may be taken.
        """
        ...


@runtime_checkable
class Executor(Protocol):
    """Lends the SQL store connections.

    Attributes:
        dialect: `postgresql`, `mysql` (MariaDB too) or `sqlite`.
        placeholder: How a parameter is written: `%s`, `?`, or `$` for `$1`, `$2` …
        embedded: True if the database is only this process's, as SQLite in memory is.
        creates: True if the store creates its tables at first use, as in an SQLite file of its own.
        place: Where the database is, to be shown: no password.
        way_out: The command that creates the tables, to be shown.
    """

    dialect: str
    placeholder: str
    embedded: bool
    creates: bool
    place: str
    way_out: str

    @property
    def max_bytes(self) -> int:
        """Bytes that one statement may have."""
        ...

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """A transaction of the store's own: it commits at the end, or rolls back if that raises.

        It has really begun (on SQLite: IMMEDIATE), is READ COMMITTED, and waits for locks and
        statements for a bounded time.

        Args:
            durable: False for what may be lost in a power failure, but never be half there.
        """
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection for SELECTs; it takes no lock."""
        ...

    def borrow(self, unit: UnitOfWork) -> Connection | None:
        """The caller's connection, if its transaction is in this database; else None.

        The store calls `execute` and `change` on it, and nothing else.

        Raises:
            ConfigurationError: The transaction is over, or can't be used from here.
        """
        ...

    def classify(self, error: BaseException) -> Failure | None:
        """Say what an error of the database's means; None if it isn't one."""
        ...

    def begin(self) -> AbstractContextManager[Any]:
        """A transaction for programs that have none of their own: it commits at the end.

        It gives what `within=` takes, and what the program can run its own statements on.
        """
        ...

    def listening(self, channel: str) -> AbstractContextManager[Any] | None:
        """A connection of its own that listens to a channel of PostgreSQL's; None: poll.

        It gives psycopg's or psycopg2's connection, and closes it at the end.
        """
        ...

    def before_fork(self) -> None:
        """In a process about to fork: close what a child can't share."""
        ...

    def after_fork(self) -> None:
        """In a forked child: forget the connections, without closing them."""
        ...

    def close(self) -> None:
        """Close the connections that are its own; calling it twice is fine."""
        ...
