"""Runs the SQL store's statements on SQLAlchemy's connections, at driver level."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import StatementError

from thorn_core.ports import Column
from thorn_core.stores.sql.drivers import (
    MAX_PACKET,
    copy_rows,
    inserts,
    packet_problem,
    plain_rows,
)
from thorn_sqlalchemy.engines import DIALECTS, MYSQL, SQLITE
from thorn_sqlalchemy.failures import PacketTooLargeError, tidy
from thorn_sqlalchemy.quiet import quietly

# A caller's connection may have other options, such as streaming, which allows SELECTs only.
OPTIONS: Mapping[str, Any] = {
    "stream_results": False,
    "yield_per": None,
    "preserve_rowcount": True,
}


def placeholder_of(paramstyle: str) -> str:
    """Return the driver's notation of a parameter."""
    return {"qmark": "?", "numeric_dollar": "$"}.get(paramstyle, "%s")


class DriverConnection:
    """Runs the SQL store's statements on a SQLAlchemy connection.

    Args:
        connection: The connection, in a transaction.
        borrowed: True for a caller's connection, whose engine may log parameters.
    """

    __slots__ = ("_borrowed", "_connection", "_dialect", "_marked", "_views")

    def __init__(self, connection: Connection, *, borrowed: bool = False) -> None:
        self._connection, self._borrowed = connection, borrowed
        self._dialect = DIALECTS[connection.dialect.name]
        # The store writes `%s` for its own driver; a caller's driver may be asyncpg.
        driver = connection.dialect.driver
        if placeholder_of(connection.dialect.paramstyle) == "$":
            self._marked: Callable[[str], str] | None = numbered
        else:
            self._marked = binary if driver in ("psycopg", "psycopg_async") else None
        self._views = driver == "psycopg2"

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        result = self._run(sql, tuple(params))
        if not result.returns_rows:
            return []
        rows = result.all()
        return plain_rows(rows) if self._views else list(map(tuple, rows))

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it matched."""
        result = self._run(sql, tuple(params))
        result.close()
        if self._dialect == SQLITE and result.rowcount < 0:
            # The cursor doesn't count rows of a statement with WITH.
            return int(self.execute("SELECT changes()")[0][0])
        return result.rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        if rows:
            self._run(sql, [tuple(row) for row in rows])

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert rows with COPY, or with INSERTs of many rows."""
        names = ", ".join(f"`{c.name}`" if self._dialect == MYSQL else c.name for c in columns)
        if self._dialect == SQLITE:
            marks = ", ".join("?" * len(columns))
            self.execute_many(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608
        elif self._connection.dialect.driver == "psycopg":
            self._copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)", columns, rows)
        else:
            insert = f"INSERT INTO {table} ({names}) VALUES "  # noqa: S608
            for statement, params in inserts(self._dialect, insert, columns, rows):
                self._run(statement, tuple(params))

    def _copy(self, sql: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
        cursor = self._connection.connection.cursor()
        try:
            with cursor.copy(sql) as copy:
                copy_rows(copy, columns, rows)
        finally:
            cursor.close()

    def _run(self, sql: str, params: Any) -> CursorResult[Any]:
        if self._dialect == MYSQL and isinstance(params, tuple):
            self._check_size(sql, params)
        if self._marked is not None:
            sql = self._marked(sql)
        try:
            if not self._borrowed:
                return self._connection.exec_driver_sql(sql, params, OPTIONS)
            with quietly(self._connection):
                return self._connection.exec_driver_sql(sql, params, OPTIONS)
        except StatementError as error:
            tidy(error)
            raise
        except (ValueError, OverflowError) as error:
            if self._connection.dialect.driver == "pg8000":
                # The driver has sent half of the packet, and would take this response for the next
                # one's.
                self._connection.invalidate(error)
            raise StatementError(str(error), sql, None, error, hide_parameters=True) from None

    def _check_size(self, sql: str, params: tuple[Any, ...]) -> None:
        """Refuse a statement that would make the server end the connection, perhaps a caller's."""
        problem = packet_problem(sql, params, self._max_packet)
        if problem is not None:
            raise PacketTooLargeError(problem)

    def _max_packet(self) -> int:
        return int(self._connection.exec_driver_sql(MAX_PACKET).scalar_one())


@functools.lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """Return a statement with `$1`, `$2` … in place of `%s`, for asyncpg."""
    parts = sql.split("%s")
    marked = (f"{part}${number}" for number, part in enumerate(parts[:-1], start=1))
    return "".join((*marked, parts[-1]))


@functools.lru_cache(maxsize=512)
def binary(sql: str) -> str:
    """Return a statement with `%b` in place of `%s`: psycopg writes arrays as text slowly."""
    return sql.replace("%s", "%b")
