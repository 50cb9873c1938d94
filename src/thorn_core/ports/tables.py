"""Tables as data: columns, their kinds, keys and indexes."""

from __future__ import annotations

import enum

import attrs


class Kind(enum.Enum):
    """What a column holds, and what a driver takes and gives for it.

    `KEY` and `BYTES` are `bytes`, the first of a fixed length; `BIG`, `INT` and `SMALL` are `int`
    of 64, 32 and 16 bits; `REAL` is `float`; `NAME` is a `str` of a bounded length that is compared
    and ordered by code points; `TEXT` is a `str` of any length that is never compared.
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
        name: Its name.
        kind: What it holds.
        length: Bytes of a `KEY`, characters of a `NAME`.
        null: Whether it may be NULL.
    """

    name: str
    kind: Kind
    length: int | None = None
    null: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Index:
    """An index; none is unique unless it says so, and none is partial.

    Attributes:
        columns: Names, in order.
        unique: Whether it refuses a second row.
        brin: Whether a block range index does where the database has one: rows are inserted in the
            order of the column.
    """

    columns: tuple[str, ...]
    unique: bool = attrs.field(default=False, kw_only=True)
    brin: bool = attrs.field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """What it is called, behind its table's name."""
        return "_".join(self.columns)


@attrs.frozen
class Table:
    """A table.

    Attributes:
        name: Its name, without the prefix that all of them have.
        columns: In order; a row is a tuple of their values.
        key: Names of the primary key's columns.
        indexes: The others.
        narrow: Rows are short: SQLite keeps them in the key's own tree.
        churning: Rows are updated often: PostgreSQL leaves room in each page.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    narrow: bool = attrs.field(default=False, kw_only=True)
    churning: bool = attrs.field(default=False, kw_only=True)

    def column(self, name: str) -> Column:
        """The column of a name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)
