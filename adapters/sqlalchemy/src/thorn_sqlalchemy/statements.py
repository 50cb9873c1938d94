"""Statements that databases word differently, and what all of them share."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Insert,
    Integer,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    Update,
    and_,
    any_,
    bindparam,
    case,
    column,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from thorn_sqlalchemy.database import MYSQL

T = TypeVar("T")
Row = Mapping[str, Any]
Rows = Sequence[Row]
Execute = Callable[[Connection, Rows], None]
Columns = Mapping[str, ColumnElement[Any]]

# MySQL's error of a key that is taken.
DUPLICATE_ENTRY = 1062
# Values of one IN: every database takes as many, and few statements are worded differently.
IN_SIZE = 500


def insert_new(dialect: str, table: Table) -> Insert:
    """An INSERT of a whole row that leaves a row with the same primary key as it is.

    Args:
        dialect: Name of the database.
        table: Where to; the parameters are its columns.
    """
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    keys = list(table.primary_key)
    if dialect in MYSQL:
        # INSERT IGNORE would also ignore that a value is too long.
        return mysql.insert(table).on_duplicate_key_update({keys[0].name: keys[0]})
    there = exists(*keys).where(*(key == _value_of(key) for key in keys))
    values = select(*(_value_of(column) for column in table.columns)).where(~there)
    return insert(table).from_select(list(table.columns), values)


def inserting_one(dialect: str, table: Table) -> Callable[[Connection, Row], bool]:
    """A function that inserts a row; False if its primary key is taken, which changes nothing.

    Args:
        dialect: Name of the database.
        table: Where to; the row has all its columns.
    """
    # MySQL tells of one row that ON DUPLICATE KEY has left as it is, as of one that was inserted.
    statement = insert(table) if dialect in MYSQL else insert_new(dialect, table)
    counting = statement.execution_options(preserve_rowcount=True)

    def execute(connection: Connection, row: Row) -> bool:
        try:
            return connection.execute(counting, row).rowcount > 0
        except IntegrityError as error:
            if dialect in MYSQL and _code(error) == DUPLICATE_ENTRY:
                return False
            raise

    return execute


def _code(error: IntegrityError) -> Any:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def _value_of(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return bindparam(column.key, type_=column.type)


# -- many rows in one statement


def inserting(dialect: str, table: Table) -> Execute:
    """A function that inserts rows and leaves those as they are whose primary key is taken.

    Args:
        dialect: Name of the database.
        table: Where to; rows have all its columns.
    """
    if dialect == "postgresql":
        given, values = _unnested({column.name: column.type for column in table.columns})
        wording = postgresql.insert(table).from_select(list(table.columns), select(*given.c))
        return _once(wording.on_conflict_do_nothing(), values)
    return _each(insert_new(dialect, table))


def upserting(
    dialect: str, table: Table, changes: Callable[[Columns, Columns], Columns]
) -> Execute:
    """A function that inserts rows, and changes those whose primary key is taken.

    Args:
        dialect: Name of the database.
        table: Where to; rows have all its columns.
        changes: Gets the columns of the row that is there and those of the one given; gives back
            the values of what is to change.
    """
    there: Columns = dict(table.columns.items())
    if dialect in MYSQL:
        statement = mysql.insert(table)
        changed = changes(there, dict(statement.inserted.items()))
        # In this order: a column reads as changed to those after it.
        return _each(statement.on_duplicate_key_update(list(changed.items())))
    keys = list(table.primary_key)
    if dialect == "sqlite":
        lite = sqlite.insert(table)
        changed = changes(there, dict(lite.excluded.items()))
        return _each(lite.on_conflict_do_update(index_elements=keys, set_=dict(changed)))
    if dialect == "postgresql":
        given, values = _unnested({column.name: column.type for column in table.columns})
        post = postgresql.insert(table).from_select(list(table.columns), select(*given.c))
        changed = changes(there, dict(post.excluded.items()))
        return _once(post.on_conflict_do_update(index_elements=keys, set_=dict(changed)), values)
    insert_each = _each(insert_new(dialect, table))
    (key,) = keys
    update_each = updating(
        dialect,
        table,
        {f"new_{name}": column.type for name, column in there.items()},
        lambda row, given: row[key.name] == given[f"new_{key.name}"],
        lambda row, given: changes(row, {name: given[f"new_{name}"] for name in there}),
    )

    def execute(connection: Connection, rows: Rows) -> None:
        insert_each(connection, rows)
        update_each(connection, [{f"new_{k}": v for k, v in row.items()} for row in rows])

    return execute


def updating(
    dialect: str,
    table: Table,
    given: Mapping[str, TypeEngine[Any]],
    where: Callable[[Columns, Columns], ColumnElement[bool]],
    changes: Callable[[Columns, Columns], Columns],
) -> Execute:
    """A function that updates rows, each by values of its own.

    Args:
        dialect: Name of the database.
        table: Of which.
        given: Names and types of the values; none is the name of a column.
        where: Gets the columns of a row and the values given; tells which row they are for.
        changes: Gets the same; gives back the new values.
    """
    there: Columns = dict(table.columns.items())

    def worded(values: Columns) -> Update:
        return update(table).where(where(there, values)).values(dict(changes(there, values)))

    if dialect == "postgresql":
        source, values = _unnested(given)
        return _once(worded(dict(source.c.items())), values)
    if dialect in MYSQL:
        source, values = _json_table(given)
        return _once(worded(dict(source.c.items())), values)
    return _each(worded({name: bindparam(name, type_=kind) for name, kind in given.items()}))


def _each(statement: Insert | Update) -> Execute:
    """Rows as the parameters of one statement: the driver repeats it, or makes one of them all."""
    worded: dict[type[Dialect], tuple[str, Callable[[Mapping[str, Any]], Any]]] = {}

    def execute(connection: Connection, rows: Rows) -> None:
        if not rows:
            return
        dialect = connection.dialect
        if dialect.name != "sqlite" and dialect.name not in MYSQL:
            connection.execute(statement, list(rows))
            return
        # Their drivers take these values as they are: SQLAlchemy needn't look at each.
        found = worded.get(type(dialect))
        if found is None:
            compiled: Any = statement.compile(dialect=dialect)
            take: Any = itemgetter(*compiled.positiontup) if compiled.positional else dict
            found = worded[type(dialect)] = (str(compiled), take)
        wording, take = found
        connection.exec_driver_sql(wording, [take(row) for row in rows])

    return execute


def _once(statement: Insert | Update, values: Callable[[Rows], dict[str, Any]]) -> Execute:
    """Rows as a table in one statement."""

    def execute(connection: Connection, rows: Rows) -> None:
        if rows:
            connection.execute(statement, values(rows))

    return execute


def _unnested(
    columns: Mapping[str, TypeEngine[Any]],
) -> tuple[FromClause, Callable[[Rows], dict[str, Any]]]:
    """Rows as an array for each column (PostgreSQL)."""
    # Of any length and collation: the columns they are for have their own.
    types = {n: Text() if isinstance(kind, String) else kind for n, kind in columns.items()}
    arrays = [bindparam(f"given_{n}", type_=postgresql.ARRAY(kind)) for n, kind in types.items()]
    source = func.unnest(*arrays).table_valued(*(column(n, kind) for n, kind in types.items()))
    names = list(columns)

    def values(rows: Rows) -> dict[str, Any]:
        return {f"given_{name}": [row[name] for row in rows] for name in names}

    return source.render_derived(name="given"), values


def _json_table(
    columns: Mapping[str, TypeEngine[Any]],
) -> tuple[FromClause, Callable[[Rows], dict[str, Any]]]:
    """Rows as one JSON text (MariaDB 10.6, MySQL 8)."""
    dialect = mysql.dialect()

    def worded(kind: TypeEngine[Any]) -> str:
        if isinstance(kind, String):
            length = f"VARCHAR({kind.length})" if kind.length else "LONGTEXT"
            return f"{length} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        return str(kind.compile(dialect=dialect))

    paths = ", ".join(f"`{n}` {worded(kind)} PATH '$.{n}'" for n, kind in columns.items())
    wording = f"SELECT * FROM JSON_TABLE(:given, '$[*]' COLUMNS ({paths})) AS given"  # noqa: S608
    source = text(wording).columns(*(column(n, kind) for n, kind in columns.items()))
    return source.subquery("given"), lambda rows: {"given": json.dumps([dict(r) for r in rows])}


class _Texts(TypeDecorator[Any]):
    """A list of texts as one JSON text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return json.dumps(list(value))


def one_of(dialect: str, column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """True if a column's text is one of those given as a parameter, which is a list.

    Args:
        dialect: Name of the database.
        column: The column.
        name: Of the parameter.
    """
    # One parameter and one wording for any number of them, where that is possible.
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=postgresql.ARRAY(Text())))
    if dialect == "sqlite":
        texts = func.json_each(bindparam(name, type_=_Texts())).table_valued("value")
        return column.in_(select(texts.c.value))
    return column.in_(bindparam(name, type_=column.type, expanding=True))


def first_of(dialect: str, statement: Select[Any], name: str) -> Select[Any]:
    """The first rows of a statement in its order, which is an index's; those of others skipped.

    A server that believes in fewer rows than there are, as after a sudden backlog, would take all
    of them and sort. PostgreSQL can't do so for a limit that it doesn't know when it plans: then it
    reads the index as far as it must.

    Args:
        dialect: Name of the database.
        statement: What is looked for, and its order.
        name: Of the parameter that says how many.
    """
    most: ColumnElement[Any] = bindparam(name, type_=Integer())
    if dialect == "postgresql":
        most = select(most).scalar_subquery()
    return statement.limit(most).with_for_update(skip_locked=True)


def earlier(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    """The lesser of two times."""
    return case((a < b, a), else_=b)


def later(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    """The greater of two times."""
    return case((a > b, a), else_=b)


def beyond(
    dialect: str,
    columns: Sequence[ColumnElement[Any]],
    values: Sequence[Any],
    *,
    descending: bool = False,
) -> ColumnElement[bool]:
    """True for the rows behind some values in the order of an index.

    Args:
        dialect: Name of the database.
        columns: The two that they are ordered by.
        values: One for each.
        descending: The order is the other way round.
    """
    compare = operator.lt if descending else operator.gt
    if dialect not in MYSQL:
        behind: ColumnElement[bool] = compare(tuple_(*columns), tuple_(*values))
        return behind
    # Of tuples it doesn't see that the index leads there.
    (first, second), (one, two) = columns, values
    return or_(compare(first, one), and_(first == one, compare(second, two)))


def same(dialect: str, column: ColumnElement[str], value: str) -> ColumnElement[bool]:
    """True if a column has a value, in a list that is ordered by an index which begins with it.

    Args:
        dialect: Name of the database.
        column: The column; where it matters, MySQL's order names it too.
        value: The value.
    """
    if dialect not in MYSQL:
        return column == value
    # Told that it equals one, MariaDB goes through that one's rows from the list's very beginning,
    # however far behind the place is that `beyond` names.
    return and_(column >= value, column <= value)


def chunks(values: Sequence[T], size: int = IN_SIZE) -> Iterator[Sequence[T]]:
    """Values in pieces: databases limit the parameters of a statement."""
    return (values[start : start + size] for start in range(0, len(values), size))
