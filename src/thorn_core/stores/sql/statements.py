"""Runs the store's statements, in the notation of `wording`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from thorn_core.ports.executor import Connection
from thorn_core.ports.tables import Column, Table
from thorn_core.stores.sql.wording import LIST_SIZE, MYSQL, POSTGRESQL, STEP, Wording

T = TypeVar("T")

# Limits of one statement: rows, and bytes of their values.
ROWS = 128
BYTES = 1024 * 1024
# A MySQL server may accept 1 MiB only, and drivers write a byte as two characters. Statements of
# this size need no query for the server's limit, either.
MYSQL_BYTES = 112 * 1024


class Statements:
    """Runs statements, in the notation of `wording`, on a connection.

    Args:
        connection: The connection, in a transaction.
        wording: The database's SQL dialect.
    """

    __slots__ = ("connection", "wording")

    def __init__(self, connection: Connection, wording: Wording) -> None:
        self.connection, self.wording = connection, wording

    def rows(self, text: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows.

        Args:
            text: The statement.
            **values: Its parameters. A list must have at least one value. A long list takes several
                statements, with the rows of all in the result, so the statement can't be ordered or
                limited.
        """
        return [row for sql, params in self._split(text, values) for row in self._rows(sql, params)]

    def _rows(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, params)

    def columns(self, table: Table) -> frozenset[str]:
        """Return the names of a table's columns in the database, or nothing if it doesn't exist."""
        name, schema = self.wording.table_name(table), self.wording.schema or None
        rows = self.rows(self.wording.columns_of, name=name, schema=schema)
        return frozenset(row[0] for row in rows)

    def create(self, tables: Sequence[Table]) -> None:
        """Create missing tables and their indexes."""
        for sql in self.wording.ddl(tables):
            self.connection.execute(sql)

    def first(self, text: str, **values: Any) -> tuple[Any, ...] | None:
        """Run a statement and return its first row, or None."""
        rows = self.rows(text, **values)
        return rows[0] if rows else None

    def for_each(
        self, text: str, given: tuple[Column, ...], rows: Sequence[Sequence[Any]], **values: Any
    ) -> list[tuple[Any, ...]]:
        """Run a SELECT for each of the given rows and return all resulting rows.

        Args:
            text: The SELECT in the notation of `Wording.for_each`.
            given: The columns of the given rows.
            rows: Values in the order of these columns.
            **values: Parameters that are the same for each row.
        """
        found = []
        for some in self._sized(_chunks(rows, ROWS)):
            whole = self.wording.for_each(text, given, len(some))
            found += self.rows(whole, **values, **self.wording.given(given, some))
        return found

    def change(self, text: str, **values: Any) -> int:
        """Run a statement and return the number of matched rows; long lists work as in `rows`."""
        return sum(self.connection.change(sql, params) for sql, params in self._split(text, values))

    def each(self, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of parameters."""
        if rows:
            statement = self.wording.statement(text)
            self.connection.execute_many(statement.sql, [statement.params(row) for row in rows])

    def insert(
        self,
        table: Table,
        rows: Sequence[Sequence[Any]],
        *,
        ignoring: bool = False,
        own: bool = False,
    ) -> None:
        """Insert rows with all columns.

        Args:
            table: The target table.
            rows: Values in the order of the columns.
            ignoring: Skip rows whose primary key exists.
            own: The connection is the store's, not a caller's, so that `execute_many` is allowed.
        """
        if own and self.wording.by_row:
            self._by_row(self.wording.insert(table, ignoring=ignoring), rows)
            return
        for some in self._sized(batches(rows, self.wording.dialect)):
            self.given(self.wording.insert(table, len(some), ignoring=ignoring), some)

    def insert_fast(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows with all columns in the fastest way; their keys must be new."""
        if rows:
            name = self.wording.table(table.name)
            self.connection.insert_many(name, table.columns, rows)

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]], change: str) -> None:
        """Insert rows with all columns, or change existing ones, on a connection of the store.

        Args:
            table: The target table.
            rows: Values in the order of the columns, with unique keys.
            change: The change in the notation of `Wording.on_conflict`.
        """
        if self.wording.by_row:
            self._by_row(self.wording.upsert(table, change), rows)
            return
        for some in self._sized(batches(rows, self.wording.dialect)):
            self.given(self.wording.upsert(table, change, len(some)), some)

    def update(
        self,
        table: Table,
        given: tuple[Column, ...],
        rows: Sequence[Sequence[Any]],
        change: str,
        where: str = "",
    ) -> None:
        """Update rows, each with its own values, on a connection of the store.

        Args:
            table: The table to update.
            given: The columns of the given rows, the primary key's first.
            rows: Values in the order of these columns, with unique keys.
            change: The change in the notation of `Wording.update_from`.
            where: A further condition, ` AND …`.
        """
        if self.wording.by_row:
            self._by_row(self.wording.update_from(table, given, change, 1, where), rows)
            return
        for some in self._sized(_chunks(rows, ROWS)):
            self.given(self.wording.update_from(table, given, change, len(some), where), some)

    def given(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement whose parameters are rows, in the order of `Wording.flat`.

        Args:
            text: The statement.
            rows: A batch of rows, small enough for one statement.
        """
        self.connection.change(self.wording.statement(text).sql, self.wording.flat(rows))

    def _by_row(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self.connection.execute_many(self.wording.statement(text).sql, list(map(tuple, rows)))

    def _sized(self, chunks: Iterable[Sequence[T]]) -> Iterator[Sequence[T]]:
        """Split chunks into few different sizes, so that few different statements exist."""
        if self.wording.arrays:
            yield from chunks
            return
        for chunk in chunks:
            rest = len(chunk) % STEP
            if whole := len(chunk) - rest:
                yield chunk[:whole]
            if rest:
                yield chunk[whole:]

    def _split(self, text: str, values: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
        lists = {name: list(value) for name, value in values.items() if _is_list(value)}
        if not lists:
            statement = self.wording.statement(text)
            yield statement.sql, statement.params(values)
            return
        longest = max(lists, key=lambda name: len(lists[name]))
        for some in _chunks(lists[longest], LIST_SIZE):
            given = {**values, **lists, longest: some}
            sizes = {name: self.wording.list_size(len(given[name])) for name in lists}
            statement = self.wording.statement(text, sizes)
            yield statement.sql, statement.params(given)


def batches(
    rows: Sequence[Sequence[Any]], dialect: str = POSTGRESQL
) -> Iterator[Sequence[Sequence[Any]]]:
    """Split rows into batches for one statement each; a larger row gets its own batch.

    Example:
        >>> [len(batch) for batch in batches([(bytes(400_000),)] * 5)]
        [2, 2, 1]
        >>> [len(batch) for batch in batches([(bytes(40_000),)] * 5, "mysql")]
        [2, 2, 1]
    """
    most = MYSQL_BYTES if dialect == MYSQL else BYTES
    batch: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        length = sum(len(value) for value in row if isinstance(value, bytes | str))
        if batch and (len(batch) >= ROWS or size + length > most):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += length
    if batch:
        yield batch


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
