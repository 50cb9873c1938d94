"""What databases word differently: types, locks, upserts; and parameters.

A statement is written once, in a notation of three marks:

- `$messages` is a table, with its prefix and schema;
- `:name.kind` is a parameter of a `Kind`, cast where the database needs it; `:name.kind[]` is an
  array of PostgreSQL's;
- `IN (:name.kind*)` is a list of them.

PostgreSQL takes lists and rows as arrays: a statement is the same for any number of them, so that
driver and server prepare it once. A driver parses a statement with very many parameters each time.

No statement has a literal `%` or `?`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from thorn_core.ports.tables import Column, Index, Kind, Table

MARK = re.compile(
    r"\$(?P<table>[a-z_]+)"
    r"|:(?P<name>[a-z_][a-z0-9_]*)\.(?P<kind>[a-z]+)(?P<array>\[\])?"
    r"|(?P<negated>NOT )?\bIN \(:(?P<list>[a-z_][a-z0-9_]*)\.(?P<of>[a-z]+)\*\)"
)
# Values of one list: every database takes as many, and few statements are worded differently.
LIST_SIZE = 512
# Statements kept, by their text and the sizes of their lists.
STATEMENT_CACHE = 500

POSTGRESQL, MYSQL, SQLITE = "postgresql", "mysql", "sqlite"
# A collation that compares by code points, blanks at the end too: MySQL and MariaDB each take its
# own name, and the other's as a comment.
NOPAD = "/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */"


@attrs.frozen
class Statement:
    """A statement in a database's own words.

    Attributes:
        sql: The text.
        names: Of each parameter in order: the name, and its place in a list, or None.
    """

    sql: str
    names: tuple[tuple[str, int | None], ...]

    def params(self, values: Mapping[str, Any]) -> list[Any]:
        """The parameters in order; a list shorter than the statement's is filled with its last."""
        return [
            values[name] if place is None else values[name][min(place, len(values[name]) - 1)]
            for name, place in self.names
        ]


class Wording:
    """One database's words.

    Args:
        dialect: `postgresql`, `mysql` or `sqlite`.
        placeholder: How a parameter is written: `%s`, `?`, or `$` for `$1`, `$2` …
        prefix: What the tables' names begin with.
        schema: The schema or database that they are in; None or empty is the connection's.
        names: Whole names, not quoted, of tables that are called otherwise than by the prefix.

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
        mysql, sqlite = dialect == MYSQL, dialect == SQLITE
        #: Whether lists and rows are parameters as arrays.
        self.arrays = dialect == POSTGRESQL
        #: Behind a SELECT: locks its rows; without those that others have locked.
        self.for_update = "" if sqlite else " FOR UPDATE"
        self.skip_locked = "" if sqlite else " FOR UPDATE SKIP LOCKED"
        #: As `limit_to`, as many as the parameter `most` says.
        self.limit = self.limit_to(":most.int")
        #: The functions for the least and the greatest of some values, none of them NULL.
        self.least, self.greatest = ("min", "max") if sqlite else ("LEAST", "GREATEST")
        #: The operator that divides whole numbers and drops the remainder.
        self.div = "DIV" if mysql else "/"
        #: Behind a SELECT: sees what others have committed, whatever the transaction's snapshot.
        self.current = " FOR UPDATE" if mysql else ""
        #: Whether INSERT, UPDATE and DELETE give rows back.
        self.returns = not mysql
        #: The names of a table's columns.
        self.columns_of = COLUMNS[dialect]
        #: The schema that the connection's unqualified names are in.
        self.current_schema = CURRENT_SCHEMA[dialect]

    def in_schema(self, schema: str | None) -> Wording:
        """The same words for tables in another schema."""
        return Wording(self.dialect, self._placeholder, self.prefix, schema, names=self._names)

    # -- names

    def quoted(self, name: str) -> str:
        """A name as the database quotes it."""
        mark = "`" if self.dialect == MYSQL else '"'
        return f"{mark}{name.replace(mark, mark * 2)}{mark}"

    def table_name(self, table: Table) -> str:
        """A table's name as the database's catalogue has it; on PostgreSQL as it is quoted."""
        if self.dialect == POSTGRESQL:
            return self.table(table.name)
        return self._name(table.name)

    def name(self, table: Table) -> str:
        """What a table is called, to be shown."""
        return self._name(table.name)

    def _name(self, name: str) -> str:
        return self._names.get(name, f"{self.prefix}{name}")

    def table(self, name: str) -> str:
        """A table's whole name, quoted."""
        own = self.quoted(self._name(name))
        return own if not self.schema else f"{self.quoted(self.schema)}.{own}"

    # -- statements

    def statement(self, text: str, sizes: Mapping[str, int] | None = None) -> Statement:
        """A statement in this database's words.

        Args:
            text: In the notation of this module.
            sizes: Of the lists, by name.
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
            # A driver may write the value itself, and a minus sign binds less than a cast: the
            # least number of a type would be out of its range.
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

    # -- clauses

    def limit_to(self, most: str) -> str:
        """The end of a SELECT whose order is an index's: only its first rows.

        PostgreSQL would take all rows and sort them if it believed in fewer than there are, as
        after a sudden backlog. With a limit that it doesn't know when it plans, it reads the index.

        Args:
            most: How many: a parameter, or a column of what is given to `for_each`.
        """
        return f" LIMIT (SELECT {most})" if self.dialect == POSTGRESQL else f" LIMIT {most}"

    def given(self, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The parameters of rows: named by column and row, `at_0`, or an array each, `at_n`."""
        if self.arrays and len(rows) > 1:
            values = zip(*rows, strict=True)
            return {f"{c.name}_n": list(some) for c, some in zip(columns, values, strict=True)}
        return {
            f"{column.name}_{n}": value
            for n, row in enumerate(rows)
            for column, value in zip(columns, row, strict=True)
        }

    def _rows(self, columns: Sequence[Column], rows: int) -> str:
        """A statement that has the rows of `given`."""
        if self.arrays and rows > 1:
            arrays = ", ".join(f":{c.name}_n.{c.kind.value}[]" for c in columns)
            return f"SELECT * FROM unnest({arrays})"
        values = (", ".join(f":{c.name}_{n}.{c.kind.value}" for c in columns) for n in range(rows))
        return f"VALUES {', '.join(f'({each})' for each in values)}"

    def insert(self, table: Table, rows: int = 1, *, ignoring: bool = False) -> str:
        """An INSERT of whole rows, whose parameters are those of `given`.

        Args:
            table: Where to.
            rows: How many.
            ignoring: Leave a row of the same primary key as it is. How many rows there were can't
                be told on MySQL.
        """
        values = self._rows(table.columns, rows)
        text = f"INSERT INTO ${table.name} ({', '.join(table.names)}) {values}"
        return f"{text} {self.on_conflict(table, '')}" if ignoring else text

    def on_conflict(self, table: Table, change: str) -> str:
        """The end of an INSERT where a row of the same primary key may be there.

        Args:
            table: Where to.
            change: What is set then; `new.` before a column is the new row's, the table's name
                nothing. Empty leaves the row as it is.
        """
        keys = ", ".join(table.key)
        if self.dialect == MYSQL:
            # INSERT IGNORE would also ignore that a value is too long.
            kept = re.sub(r"\bnew\.([a-z_]+)", r"VALUES(\1)", change)
            return f"ON DUPLICATE KEY UPDATE {kept or f'{table.key[0]} = {table.key[0]}'}"
        if not change:
            return f"ON CONFLICT ({keys}) DO NOTHING"
        told = re.sub(r"\bnew\.", "excluded.", change)
        return f"ON CONFLICT ({keys}) DO UPDATE SET {told}"

    def update_from(
        self, table: Table, given: Sequence[Column], change: str, rows: int, where: str = ""
    ) -> str:
        """An UPDATE of many rows, each with values of its own.

        Args:
            table: Which.
            given: The columns of what is given, the primary key's first.
            change: What is set; `v.` before a column is what is given, `t.` the row's.
            rows: How many; parameters are those of `given`.
            where: A further condition, ` AND …`.
        """
        keys = " AND ".join(f"t.{key} = v.{key}" for key in table.key)
        if self.dialect == MYSQL:

            def each(n: int) -> str:
                return ", ".join(f":{c.name}_{n}.{c.kind.value} AS {c.name}" for c in given)

            values = " UNION ALL ".join(f"SELECT {each(n)}" for n in range(rows))
            told = re.sub(r"(^|, )([a-z_]+) =", r"\1t.\2 =", change)
            # In the order given, so that rows are locked in it, and none that isn't to change.
            return (
                f"UPDATE ({values}) v STRAIGHT_JOIN ${table.name} t ON {keys} SET {told}"
                f" WHERE 1 = 1{where}"
            )
        return (
            f"WITH v ({', '.join(c.name for c in given)}) AS ({self._rows(given, rows)})"
            f" UPDATE ${table.name} AS t SET {change} FROM v WHERE {keys}{where}"
        )

    def for_each(self, text: str, given: Sequence[Column], rows: int) -> str:
        """A SELECT for each of some values: the rows of all.

        Args:
            text: The SELECT; it may be ordered and limited. `v.` before a column is what is given.
            given: The columns of what is given.
            rows: How many; parameters are those of `given`.
        """
        if self.dialect == POSTGRESQL:
            # Planning a long UNION takes longer.
            names = ", ".join(c.name for c in given)
            values = f"({self._rows(given, rows)}) AS v ({names})"
            return f"SELECT f.* FROM {values} CROSS JOIN LATERAL ({text}) AS f"
        kinds = {column.name: column.kind.value for column in given}

        def each(n: int) -> str:
            return re.sub(r"\bv\.([a-z_]+)", lambda m: f":{m[1]}_{n}.{kinds[m[1]]}", text)

        return " UNION ALL ".join(f"SELECT * FROM ({each(n)}) AS f{n}" for n in range(rows))

    # -- tables

    def ddl(self, tables: Sequence[Table]) -> list[str]:
        """The statements that create tables and their indexes, where they aren't there yet."""
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
        """What an index is called."""
        return f"{self.prefix}{table.name}_{index.name}"

    def _index(self, table: Table, index: Index) -> str:
        name = self.quoted(self.index_name(table, index))
        columns = ", ".join(map(self.quoted, index.columns))
        unique = "UNIQUE " if index.unique else ""
        on = self.table(table.name)
        if self.dialect == SQLITE and self.schema:
            # SQLite names the schema with the index.
            name, on = (
                f"{self.quoted(self.schema)}.{name}",
                self.quoted(self._name(table.name)),
            )
        using = " USING brin" if index.brin and self.dialect == POSTGRESQL else ""
        return f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {on}{using} ({columns})"

    def type_of(self, column: Column) -> str:
        """A column's type, with NOT NULL where it is."""
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
# By the parameters `name` and `schema`. PostgreSQL finds the table as statements do, by its search
# path.
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
