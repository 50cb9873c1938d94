"""INSERT statements and upserts: determines the rows they create and change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Column,
    Insert,
    Result,
    Row,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy.engine.cursor import null_dml_result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.orm.exc import UnmappedColumnError

from thorn_sqlalchemy.models.keys import Key, among, attributes, chunks, key_names, locking
from thorn_sqlalchemy.models.rows import (
    Before,
    aside,
    dml_of,
    key_of,
    reading,
    tell_changed,
    tell_created,
)
from thorn_sqlalchemy.models.watches import column_properties

logger = logging.getLogger(__name__)


def insert_rows(execution: ORMExecuteState, mapper: Mapper[Any]) -> Result[Any] | None:
    """Execute an INSERT and send signals for its rows; return the unchanged result."""
    statement: Insert = dml_of(execution)
    if execution.execution_options.get("dml_strategy") == "raw":
        return None
    names = [prop.key for prop in column_properties(mapper)]
    given = _given(execution, mapper, statement) if _may_conflict(statement) else {}
    before = _existing(execution, mapper, names, given)
    if statement is execution.statement:
        result, inserted = _execute(execution, mapper, statement, conflicts=bool(given))
    else:
        result, inserted = _returned(execution.invoke_statement(), mapper)
    if inserted is None:
        inserted = list(_existing(execution, mapper, [], given))
        if not inserted:
            logger.warning(
                "no events for rows of %s: the database doesn't report which rows this INSERT"
                " created; set their primary keys, or use session.add_all()",
                mapper.class_.__name__,
            )
    created = [key for key in dict.fromkeys(inserted) if key not in before]
    with reading(execution) as reader:
        tell_created(execution.session, reader, mapper, created)
        if before:
            tell_changed(execution.session, reader, mapper, names, before)
    return result


def _may_conflict(statement: Insert) -> bool:
    """Return True for ON CONFLICT, ON DUPLICATE KEY and INSERT IGNORE: rows may exist already."""
    return statement._post_values_clause is not None or bool(statement._prefixes)


def _execute(
    execution: ORMExecuteState, mapper: Mapper[Any], statement: Insert, *, conflicts: bool
) -> tuple[Result[Any], list[Key] | None]:
    """Execute an INSERT; return the result and its rows' primary keys, or None if unknown."""
    columns, parameters = attributes(mapper.class_, key_names(mapper)), execution.parameters
    dialect = execution.session.get_bind(**execution.bind_arguments).dialect
    asked = len(statement._returning)
    if asked:
        frozen = execution.invoke_statement(statement=statement.returning(*columns)).freeze()
        keys = [tuple(row[asked:]) for row in frozen.data]
        return frozen().columns(*range(asked)), keys
    if parameters and dialect.insert_executemany_returning:
        result = execution.invoke_statement(statement=statement.returning(*columns))
        return null_dml_result(), [tuple(row) for row in result]
    if not parameters and (statement._multi_values or statement.select is not None):
        if not dialect.insert_returning:
            return execution.invoke_statement(), None
        result = execution.invoke_statement(statement=statement.returning(*columns))
        return result.raw, [tuple(row) for row in result]  # type: ignore[attr-defined]
    if not parameters:
        result = execution.invoke_statement()
        # After a conflict, the driver returns the primary key of an earlier row.
        made = None if conflicts else result.inserted_primary_key_rows  # type: ignore[attr-defined]
        return result, made and _all_known(made)
    if _may_conflict(statement) or statement._values:
        return execution.invoke_statement(), None
    # Without RETURNING, use SQLAlchemy's row-by-row insertion.
    rows: list[dict[str, Any]] = [dict(row) for row in _listed(parameters)]
    session, nulls = execution.session, execution.execution_options.get("render_nulls", False)
    if session.autoflush:
        session.flush()
    Session.bulk_insert_mappings(session, mapper, rows, return_defaults=True, render_nulls=nulls)
    keys = [tuple(row.get(name) for name in key_names(mapper)) for row in rows]
    return null_dml_result(), _all_known(keys)


def _returned(result: Result[Any], mapper: Mapper[Any]) -> tuple[Result[Any], list[Key] | None]:
    """Return the primary keys of the instances that a `select().from_statement()` returns."""
    frozen = result.freeze()
    rows = (row if isinstance(row, Row) else (row,) for row in frozen.data)
    values = (value for row in rows for value in row)
    keys = [key_of(value) for value in values if isinstance(value, mapper.class_)]
    return frozen(), keys or None


def _all_known(keys: Iterable[Iterable[Any]]) -> list[Key] | None:
    listed = [tuple(key) for key in keys]
    return None if any(None in key for key in listed) else listed


# -- conflicts


def _given(
    execution: ORMExecuteState, mapper: Mapper[Any], statement: Insert
) -> dict[tuple[str, ...], list[Key]]:
    """Return the values of the unique keys of the new rows, by the keys' attributes."""
    rows = _listed(execution.parameters)
    if statement._multi_values:
        rows = [row for some in statement._multi_values for row in some]
    names = {prop.key for prop in column_properties(mapper)}
    plain = [
        {
            key if key in names else mapper.get_property_by_column(key).key: _plain(value)
            for key, value in {**(statement._values or {}), **row}.items()
        }
        for row in rows
    ]
    given = {}
    for unique in _unique_keys(mapper):
        keys = dict.fromkeys(tuple(row.get(name) for name in unique) for row in plain)
        if known := [key for key in keys if None not in key]:
            given[unique] = known
    return given


def _listed(parameters: Any) -> list[Any]:
    return parameters if isinstance(parameters, list) else [parameters or {}]


def _plain(value: Any) -> Any:
    """Return a value as bound; None if the database computes it."""
    if isinstance(value, BindParameter):
        return value.value
    return None if isinstance(value, ClauseElement) else value


def _unique_keys(mapper: Mapper[Any]) -> Iterator[tuple[str, ...]]:
    """Return the attributes of each unique key of a class, the primary key included."""
    yield tuple(key_names(mapper))
    table = mapper.local_table
    if not isinstance(table, Table):
        return
    found: list[list[Any]] = [list(index.expressions) for index in table.indexes if index.unique]
    found += [list(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint)]
    for unique in found:
        if all(isinstance(column, Column) for column in unique):
            try:
                yield tuple(mapper.get_property_by_column(column).key for column in unique)
            except UnmappedColumnError:
                continue


def _existing(
    execution: ORMExecuteState,
    mapper: Mapper[Any],
    names: Sequence[str],
    given: Mapping[tuple[str, ...], list[Key]],
) -> Before:
    """Read and lock the existing rows with these unique keys."""
    entity, found = mapper.class_, {}
    columns = attributes(entity, key_names(mapper))
    wanted = locking(select(*columns, *attributes(entity, names)), mapper)
    for unique, keys in given.items():
        for some in chunks(keys):
            for row in aside(execution, wanted.where(among(attributes(entity, unique), some))):
                found[tuple(row[: len(columns)])] = tuple(row[len(columns) :])
    return found
