"""The SQL dialects of databases: types, locks, upserts and parameters.

The store writes each statement once, in a notation with three marks:

- `$messages` is a table; it gets its prefix and schema;
- `:name.kind` is a parameter of a `Kind`, cast where the database needs it; `:name.kind[]` is a
  PostgreSQL array;
- `IN (:name.kind*)` is a list of parameters.

PostgreSQL takes lists and rows as arrays. The statement is then the same for any number of values,
so that driver and server prepare it once.

No statement contains a literal `%` or `?`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from thorn_core.ports.tables import Column, Index, Kind, Table

MARK = re.compile(
    r"\$(?P<table>[a-z_]+)"
    r"|:(?P<name>[a-z_][a-z0-9_]*)\.(?P<kind>[a-z]+)(?P<array>\[\])?"
    r"|(?P<negated>NOT )?\bIN \(:(?P<list>[a-z_][a-z0-9_]*)\.(?P<of>[a-z]+)\*\)"
)
# The maximum number of values in a list: every database accepts it, and few different statements
# exist.
LIST_SIZE = 512
# Longer lists, and statements of more rows, have a multiple of this number.
STEP = 16
# The number of cached statements, by text and list sizes.
STATEMENT_CACHE = 500

POSTGRESQL, MYSQL, SQLITE = "postgresql", "mysql", "sqlite"
# A collation that compares by code points, trailing blanks included: MySQL and MariaDB each read
# their own name and take the other as a comment.
NOPAD = "/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */"


@attrs.frozen
class Statement:
    """A statement in a database's dialect.

    Attributes:
        sql: The text.
        names: The parameters in order: each one's name and its position in a list, or None.
    """

    sql: str
    names: tuple[tuple[str, int | None], ...]

    def params(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the parameters in order; the last value of a short list fills the rest."""
        return [
            values[name] if place is None else values[name][min(place, len(values[name]) - 1)]
            for name, place in self.names
        ]


class Wording:
    """The SQL dialect of one database.

    Args:
        dialect: `postgresql`, `mysql` or `sqlite`.
        placeholder: The notation of a parameter: `%s`, `?`, or `$` for `$1`, `$2` …
        prefix: The prefix of the tables' names.
        schema: The tables' schema or database; None or empty is the connection's.
        names: Complete unquoted names of tables without the prefix.

    Example:
        >>> wording = Wording("postgresql", "$", "thorn_", None)
        >>> text = "SELECT 1 FROM $outbox WHERE message_id IN (:keys.key*)"
        >>> wording.statement(text, {"keys": 2}).sql
        'SELECT 1 FROM "thorn_outbox" WHERE message_id = ANY ($1::bytea[])'
        >>> Wording("sqlite", "?", "thorn_", None).statement(text, {"keys": 2}).sql
        'SELECT 1 FROM "thorn_outbox" WHERE message_id IN (?, ?)'
    """

    def __init__(
        self,
        dialect: str,
        placeholder: str,
        prefix: str,
        schema: str | None,
        *,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.dialect, self.prefix, self.schema = dialect, prefix, schema
        self._names = names or {}
        self._placeholder = placeholder
        self._made: dict[tuple[str, tuple[tuple[str, int], ...]], Statement] = {}
        self._texts: dict[tuple[Any, ...], str] = {}
        mysql, sqlite = dialect == MYSQL, dialect == SQLITE
        #: Whether lists and rows are array parameters.
        self.arrays = dialect == POSTGRESQL
        #: Whether one prepared statement, run for each row, is faster than a statement of many
        #: rows.
        self.by_row = sqlite
        #: Suffixes of a SELECT that lock its rows; the second one skips rows locked by others.
        self.for_update = "" if sqlite else " FOR UPDATE"
        self.skip_locked = "" if sqlite else " FOR UPDATE SKIP LOCKED"
        #: `limit_to` with the parameter `most`.
        self.limit = self.limit_to(":most.int")
        #: The functions for the least and the greatest of several values without NULL.
        self.least, self.greatest = ("min", "max") if sqlite else ("LEAST", "GREATEST")
        #: The operator for integer division without remainder.
        self.div = "DIV" if mysql else "/"
        #: A suffix of a SELECT: read the latest committed rows, whatever the transaction's
        #: snapshot.
        self.current = " FOR UPDATE" if mysql else ""
        #: Whether INSERT, UPDATE and DELETE can return rows.
        self.returns = not mysql
        #: The query for the names of a table's columns.
        self.columns_of = COLUMNS[dialect]
        #: The query for the schema of the connection's unqualified names.
        self.current_schema = CURRENT_SCHEMA[dialect]

    def in_schema(self, schema: str | None) -> Wording:
        """Return the same dialect for tables in another schema."""
        return Wording(self.dialect, self._placeholder, self.prefix, schema, names=self._names)

    # -- names

    def quoted(self, name: str) -> str:
        """Return a quoted name."""
        mark = "`" if self.dialect == MYSQL else '"'
        return f"{mark}{name.replace(mark, mark * 2)}{mark}"

    def table_name(self, table: Table) -> str:
        """Return a table's name in the database's catalogue; on PostgreSQL, quoted."""
        if self.dialect == POSTGRESQL:
            return self.table(table.name)
        return self._name(table.name)

    def name(self, table: Table) -> str:
        """Return a table's name for messages."""
        return self._name(table.name)

    def _name(self, name: str) -> str:
        return self._names.get(name, f"{self.prefix}{name}")

    def table(self, name: str) -> str:
        """Return a table's complete name, quoted."""
        own = self.quoted(self._name(name))
        return own if not self.schema else f"{self.quoted(self.schema)}.{own}"

    # -- statements

    def statement(self, text: str, sizes: Mapping[str, int] | None = None) -> Statement:
        """Return a statement in this database's dialect.

        Args:
            text: The statement in the notation of this module.
            sizes: The sizes of the lists, by name.
        """
        key = (text, tuple(sorted(sizes.items())) if sizes and not self.arrays else ())
        made = self._made.get(key)
        if made is None:
            made = self._make(text, dict(key[1]))
            if len(self._made) >= STATEMENT_CACHE:
                self._made.clear()
            self._made[key] = made
        return made

    def _make(self, text: str, sizes: Mapping[str, int]) -> Statement:
        names: list[tuple[str, int | None]] = []

        def parameter(name: str, place: int | None, kind: str, array: str = "") -> str:
            names.append((name, place))
            mark = f"${len(names)}" if self._placeholder == "$" else self._placeholder
            if self.dialect != POSTGRESQL:
                return mark
            # A driver may write the value itself, and a cast binds more tightly than a minus sign:
            # the lowest number of a type would be out of range.
            kept = f"({mark})" if mark == "%s" else mark
            return f"{kept}::{CASTS[Kind(kind)]}{array}"

        def word(match: re.Match[str]) -> str:
            if match["table"]:
                return self.table(match["table"])
            if match["name"]:
                return parameter(match["name"], None, match["kind"], match["array"] or "")
            name, kind, negated = match["list"], match["of"], match["negated"] or ""
            if self.arrays:
                comparison = "<> ALL" if negated else "= ANY"
                return f"{comparison} ({parameter(name, None, kind, '[]')})"
            marks = ", ".join(parameter(name, place, kind) for place in range(sizes[name]))
            return f"{negated}IN ({marks})"

        sql = MARK.sub(word, text)
        return Statement(sql, tuple(names))

    def list_size(self, length: int) -> int:
        """Return the number of parameters for a list, so that few different statements exist.

        SQLite keeps few prepared statements; MySQL's drivers write every value into the text.
        """
        if self.dialect == SQLITE:
            return int(1 << (length - 1).bit_length())
        return length if length <= STEP else -(-length // STEP) * STEP

    def _text(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        """Return a text, cached by what it depends on; the key ends with the number of rows."""
        if self.arrays:
            key = (*key[:-1], min(key[-1], 2))  # all statements of several rows are alike
        text = self._texts.get(key)
        if text is None:
            text = make()
            if len(self._texts) >= STATEMENT_CACHE:
                self._texts.clear()
            self._texts[key] = text
        return text

    # -- clauses

    def limit_to(self, most: str) -> str:
        """Return the LIMIT of a SELECT that follows an index.

        With outdated statistics, such as after a sudden backlog, PostgreSQL would read and sort all
        rows. A limit that is unknown at planning makes it follow the index.

        Args:
            most: The limit: a parameter, or a column of the rows given to `for_each`.
        """
        return f" LIMIT (SELECT {most})" if self.dialect == POSTGRESQL else f" LIMIT {most}"

    def flat(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the parameters of an INSERT or UPDATE of rows, in order."""
        if self.arrays and len(rows) > 1:
            return [list(values) for values in zip(*rows, strict=True)]
        return list(itertools.chain.from_iterable(rows))

    def given(self, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the named parameters of `for_each`: one per value (`at_0`), or one per column."""
        if self.arrays and len(rows) > 1:
            values = zip(*rows, strict=True)
            return {f"{c.name}_n": list(some) for c, some in zip(columns, values, strict=True)}
        return {
            f"{column.name}_{n}": value
            for n, row in enumerate(rows)
            for column, value in zip(columns, row, strict=True)
        }

    def _rows(self, columns: Sequence[Column], rows: int) -> str:
        """Return a SELECT or VALUES of the rows in `given`."""
        if self.arrays and rows > 1:
            arrays = ", ".join(f":{c.name}_n.{c.kind.value}[]" for c in columns)
            return f"SELECT * FROM unnest({arrays})"
        values = (", ".join(f":{c.name}_{n}.{c.kind.value}" for c in columns) for n in range(rows))
        return f"VALUES {', '.join(f'({each})' for each in values)}"

    def insert(self, table: Table, rows: int = 1, *, ignoring: bool = False) -> str:
        """Return an INSERT of rows with all columns; `flat` orders its parameters.

        Args:
            table: The target table.
            rows: The number of rows.
            ignoring: Skip rows whose primary key exists. MySQL doesn't report their number.
        """

        def make() -> str:
            values = self._rows(table.columns, rows)
            text = f"INSERT INTO ${table.name} ({', '.join(table.names)}) {values}"
            return f"{text} {self.on_conflict(table, '')}" if ignoring else text

        return self._text(("insert", table.name, ignoring, rows), make)

    def upsert(self, table: Table, change: str, rows: int = 1) -> str:
        """Return an INSERT of rows that changes existing ones; see `insert` and `on_conflict`."""
        return self._text(
            ("upsert", table.name, change, rows),
            lambda: f"{self.insert(table, rows)} {self.on_conflict(table, change)}",
        )

    def on_conflict(self, table: Table, change: str) -> str:
        """Return the end of an INSERT whose primary keys may exist.

        Args:
            table: The target table.
            change: The assignments for an existing row; `new.` stands before a column of the new
                row. Empty leaves the row unchanged.
        """
        keys = ", ".join(table.key)
        if self.dialect == MYSQL:
            # INSERT IGNORE would also ignore values that are too long.
            kept = re.sub(r"\bnew\.([a-z_]+)", r"VALUES(\1)", change)
            return f"ON DUPLICATE KEY UPDATE {kept or f'{table.key[0]} = {table.key[0]}'}"
        if not change:
            return f"ON CONFLICT ({keys}) DO NOTHING"
        told = re.sub(r"\bnew\.", "excluded.", change)
        return f"ON CONFLICT ({keys}) DO UPDATE SET {told}"

    def update_from(
        self, table: Table, given: tuple[Column, ...], change: str, rows: int, where: str = ""
    ) -> str:
        """Return an UPDATE of many rows, each with its own values.

        Args:
            table: The table to update.
            given: The columns of the given rows, the primary key's first.
            change: The assignments; `v.` stands before a given column, `t.` before the row's.
            rows: The number of rows; `flat` orders the parameters.
            where: A further condition, ` AND …`.
        """
        return self._text(
            ("update", table.name, given, change, where, rows),
            lambda: self._update_from(table, given, change, rows, where),
        )

    def _update_from(
        self, table: Table, given: Sequence[Column], change: str, rows: int, where: str
    ) -> str:
        keys = " AND ".join(f"t.{key} = v.{key}" for key in table.key)
        if self.dialect == MYSQL:

            def each(n: int) -> str:
                return ", ".join(f":{c.name}_{n}.{c.kind.value} AS {c.name}" for c in given)

            values = " UNION ALL ".join(f"SELECT {each(n)}" for n in range(rows))
            told = re.sub(r"(^|, )([a-z_]+) =", r"\1t.\2 =", change)
            # A join in the given order, so that it locks rows in that order and no others.
            return (
                f"UPDATE ({values}) v STRAIGHT_JOIN ${table.name} t ON {keys} SET {told}"
                f" WHERE 1 = 1{where}"
            )
        return (
            f"WITH v ({', '.join(c.name for c in given)}) AS ({self._rows(given, rows)})"
            f" UPDATE ${table.name} AS t SET {change} FROM v WHERE {keys}{where}"
        )

    def for_each(self, text: str, given: tuple[Column, ...], rows: int) -> str:
        """Return a SELECT for each of the given rows, with the resulting rows of all.

        Args:
            text: The SELECT; it may be ordered and limited. `v.` stands before a given column.
            given: The columns of the given rows.
            rows: The number of rows; `given` names the parameters.
        """
        return self._text(("each", text, given, rows), lambda: self._for_each(text, given, rows))

    def _for_each(self, text: str, given: Sequence[Column], rows: int) -> str:
        if self.dialect == POSTGRESQL:
            # PostgreSQL plans a long UNION more slowly.
            names = ", ".join(c.name for c in given)
            values = f"({self._rows(given, rows)}) AS v ({names})"
            return f"SELECT f.* FROM {values} CROSS JOIN LATERAL ({text}) AS f"
        kinds = {column.name: column.kind.value for column in given}

        def each(n: int) -> str:
            return re.sub(r"\bv\.([a-z_]+)", lambda m: f":{m[1]}_{n}.{kinds[m[1]]}", text)

        return " UNION ALL ".join(f"SELECT * FROM ({each(n)}) AS f{n}" for n in range(rows))

    # -- tables

    def ddl(self, tables: Sequence[Table]) -> list[str]:
        """Return the statements that create missing tables and their indexes."""
        return [statement for table in tables for statement in self._ddl(table)]

    def _ddl(self, table: Table) -> list[str]:
        lines = [f"{self.quoted(c.name)} {self.type_of(c)}" for c in table.columns]
        lines.append(f"PRIMARY KEY ({', '.join(map(self.quoted, table.key))})")
        if self.dialect == MYSQL:
            lines += [
                f"{'UNIQUE ' if i.unique else ''}KEY {self.quoted(self.index_name(table, i))}"
                f" ({', '.join(map(self.quoted, i.columns))})"
                for i in table.indexes
            ]
        end = ""
        if self.dialect == MYSQL:
            end = f" ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={NOPAD}"
        elif self.dialect == SQLITE and table.narrow:
            end = " WITHOUT ROWID"
        elif self.dialect == POSTGRESQL and table.churning:
            end = " WITH (fillfactor = 50)"
        created = f"CREATE TABLE IF NOT EXISTS {self.table(table.name)} ({', '.join(lines)}){end}"
        if self.dialect == MYSQL:
            return [created]
        return [created, *(self._index(table, index) for index in table.indexes)]

    def index_name(self, table: Table, index: Index) -> str:
        """Return an index's name."""
        return f"{self.prefix}{table.name}_{index.name}"

    def _index(self, table: Table, index: Index) -> str:
        name = self.quoted(self.index_name(table, index))
        columns = ", ".join(map(self.quoted, index.columns))
        unique = "UNIQUE " if index.unique else ""
        on = self.table(table.name)
        if self.dialect == SQLITE and self.schema:
            # SQLite puts the schema before the index's name.
            name, on = (
                f"{self.quoted(self.schema)}.{name}",
                self.quoted(self._name(table.name)),
            )
        using = " USING brin" if index.brin and self.dialect == POSTGRESQL else ""
        return f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {on}{using} ({columns})"

    def type_of(self, column: Column) -> str:
        """Return a column's type, with NOT NULL if necessary."""
        made = TYPES[self.dialect][column.kind].format(length=column.length)
        return made if column.null else f"{made} NOT NULL"


CASTS = {
    Kind.KEY: "bytea",
    Kind.BYTES: "bytea",
    Kind.BIG: "bigint",
    Kind.INT: "integer",
    Kind.SMALL: "smallint",
    Kind.REAL: "double precision",
    Kind.NAME: "text",
    Kind.TEXT: "text",
}
# Queries with the parameters `name` and `schema`. PostgreSQL finds the table by its search path, as
# it does for statements.
COLUMNS = {
    POSTGRESQL: (
        "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(:name.text)"
        " AND attnum > 0 AND NOT attisdropped"
    ),
    MYSQL: (
        "SELECT column_name FROM information_schema.columns WHERE table_name = :name.text"
        " AND table_schema = coalesce(:schema.text, database())"
    ),
    SQLITE: "SELECT name FROM pragma_table_info(:name.text, coalesce(:schema.text, 'main'))",
}
CURRENT_SCHEMA = {
    POSTGRESQL: "SELECT current_schema()",
    MYSQL: "SELECT database()",
    SQLITE: "SELECT 'main'",
}
TYPES: Mapping[str, Mapping[Kind, str]] = {
    POSTGRESQL: {
        **CASTS,
        Kind.NAME: 'varchar({length}) COLLATE "C"',
    },
    MYSQL: {
        Kind.KEY: "binary({length})",
        Kind.BYTES: "longblob",
        Kind.BIG: "bigint",
        Kind.INT: "int",
        Kind.SMALL: "smallint",
        Kind.REAL: "double",
        Kind.NAME: "varchar({length})",
        Kind.TEXT: "longtext",
    },
    SQLITE: {
        Kind.KEY: "blob",
        Kind.BYTES: "blob",
        Kind.BIG: "bigint",
        Kind.INT: "integer",
        Kind.SMALL: "smallint",
        Kind.REAL: "real",
        Kind.NAME: "varchar({length})",
        Kind.TEXT: "text",
    },
}
