"""Helpers for executors on DB-API drivers: COPY, long INSERTs, packet sizes, memory views."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from thorn_core.ports.tables import Column, Kind
from thorn_core.stores.sql.statements import batches
from thorn_core.stores.sql.wording import CASTS, POSTGRESQL

# The names of the types in binary COPY.
COPIED = {
    **CASTS,
    Kind.BIG: "int8",
    Kind.INT: "int4",
    Kind.SMALL: "int2",
    Kind.REAL: "float8",
}
# Every MySQL server accepts statements up to this many bytes.
SMALL_STATEMENT = 256 * 1024
MAX_PACKET = "SELECT @@max_allowed_packet"


def copy_rows(copy: Any, columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to psycopg's binary COPY.

    Args:
        copy: psycopg's `Copy`, begun with `COPY … FROM STDIN (FORMAT BINARY)`.
        columns: The columns of the rows.
        rows: Values in the order of the columns.
    """
    copy.set_types([COPIED[column.kind] for column in columns])
    for row in rows:
        copy.write_row(row)


def inserts(
    dialect: str, insert: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
) -> Iterator[tuple[str, list[Any]]]:
    """Split an INSERT of many rows into statements with `%s` placeholders.

    Args:
        dialect: The executor's dialect.
        insert: The statement up to and including `VALUES `.
        columns: The columns of the rows.
        rows: Values in the order of the columns.

    Returns:
        Each statement and its parameters.

    Example:
        >>> columns = [Column("at", Kind.BIG), Column("number", Kind.INT)]
        >>> list(inserts("mysql", "INSERT INTO t (at, number) VALUES ", columns, [(1, 2), (3, 4)]))
        [('INSERT INTO t (at, number) VALUES (%s, %s), (%s, %s)', [1, 2, 3, 4])]
    """
    # psycopg2 writes the values itself, and a cast binds more tightly than a minus sign.
    casts = dialect == POSTGRESQL
    marks = ", ".join(f"(%s)::{CASTS[c.kind]}" if casts else "%s" for c in columns)
    for batch in batches(rows, dialect):
        values = ", ".join([f"({marks})"] * len(batch))
        yield insert + values, list(itertools.chain.from_iterable(batch))


def packet_problem(sql: str, params: Iterable[Any], max_packet: Callable[[], int]) -> str | None:
    """Explain why a statement is too large for MySQL, or return None.

    The server ends the connection of a client that sends a larger packet.

    Args:
        sql: The statement.
        params: Its parameters.
        max_packet: Queries the server's max_allowed_packet in bytes; called for long statements
            only.

    Example:
        >>> packet_problem("SELECT %s", ["a"], lambda: 1_000) is None
        True
        >>> packet_problem("SELECT %s", [bytes(200_000)], lambda: 300_000)[:33]
        'a statement may have 400009 bytes'
    """
    # Drivers write a byte as two hexadecimal digits, or escape it.
    size = len(sql) + 2 * sum(len(value) for value in params if isinstance(value, str | bytes))
    if size < SMALL_STATEMENT or size < (most := max_packet()):
        return None
    return (
        f"a statement may have {size} bytes, more than max_allowed_packet, {most}; raise that"
        f" setting of the server"
    )


def plain_rows(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return rows as tuples, with `bytes` in place of psycopg2's memory views.

    Other drivers return bytes, so that nobody has to look at every value.
    """
    return [tuple(map(_plain, row)) for row in rows]


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, memoryview) else value
