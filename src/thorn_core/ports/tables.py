"""Tables as data: columns, their kinds, keys and indexes."""

from __future__ import annotations

import enum

import attrs


class Kind(enum.Enum):
    """The type of a column and of its values in Python.

    `KEY` and `BYTES` are `bytes`, the first of a fixed length; `BIG`, `INT` and `SMALL` are `int`
    of 64, 32 and 16 bits; `REAL` is `float`; `NAME` is a `str` of limited length, compared and
    ordered by code points; `TEXT` is a `str` of any length, never compared.
    """

    KEY = "key"
    BYTES = "bytes"
    BIG = "big"
    INT = "int"
    SMALL = "small"
    REAL = "real"
    NAME = "name"
    TEXT = "text"


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        name: The column's name.
        kind: The type of its values.
        length: The number of bytes of a `KEY` or characters of a `NAME`.
        null: Whether it may be NULL.
    """

    name: str
    kind: Kind
    length: int | None = None
    null: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Index:
    """An index; partial indexes are not supported.

    Attributes:
        columns: The columns' names, in order.
        unique: Whether the index is unique.
        brin: Whether a block range index is enough if the database has one, because inserts follow
            the order of the column.
    """

    columns: tuple[str, ...]
    unique: bool = attrs.field(default=False, kw_only=True)
    brin: bool = attrs.field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """The suffix of the index's name, after the table's name."""
        return "_".join(self.columns)


@attrs.frozen
class Table:
    """A table.

    Attributes:
        name: The table's name, without the common prefix.
        columns: The columns, in order; a row is a tuple of their values.
        key: The names of the primary key's columns.
        indexes: The other indexes.
        narrow: Whether rows are short: SQLite then stores them in the primary key's tree.
        churning: Whether rows change often: PostgreSQL then leaves free space in each page.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    narrow: bool = attrs.field(default=False, kw_only=True)
    churning: bool = attrs.field(default=False, kw_only=True)

    def column(self, name: str) -> Column:
        """Return the column with this name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)
