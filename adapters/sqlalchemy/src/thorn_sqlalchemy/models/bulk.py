"""Statements that change many rows at once, without the session's instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Result, select
from sqlalchemy.orm import Mapper, ORMExecuteState

from thorn_sqlalchemy.models.inserts import insert_rows
from thorn_sqlalchemy.models.keys import Key, among, attributes, chunks, key_names, locking
from thorn_sqlalchemy.models.rows import (
    Before,
    aside,
    dml_of,
    hold_deleted,
    reading,
    tell_changed,
    tell_deleted,
)
from thorn_sqlalchemy.models.watches import asks, attribute_names


def on_statement(execution: ORMExecuteState) -> Result[Any] | None:
    """Send signals for the changed rows of a statement, if their class has `bulk`."""
    if execution.is_select or not execution.is_orm_statement:
        return None
    mapper = execution.bind_mapper
    if mapper is None:
        return None
    if execution.is_update and asks(mapper, "change"):
        return _update(execution, mapper)
    if execution.is_delete and asks(mapper, "delete"):
        return _delete(execution, mapper)
    if execution.is_insert and (asks(mapper, "create") or asks(mapper, "change")):
        return insert_rows(execution, mapper)
    return None


def _update(execution: ORMExecuteState, mapper: Mapper[Any]) -> Result[Any]:
    names = _written(execution, mapper)
    before = _matched(execution, mapper, names)
    result = execution.invoke_statement()
    if before:
        with reading(execution) as reader:
            tell_changed(execution.session, reader, mapper, names, before)
    return result


def _delete(execution: ORMExecuteState, mapper: Mapper[Any]) -> Result[Any]:
    session, keys = execution.session, list(_matched(execution, mapper, []))
    with reading(execution) as reader:
        made = hold_deleted(session, reader, mapper, keys)
    result = execution.invoke_statement()
    left: set[Key] = set()
    if getattr(result, "rowcount", None) != len(keys):
        # LIMIT or added criteria may exclude rows that match the statement's condition.
        left = {key for some in chunks(list(made)) for key in _there(execution, mapper, some)}
    tell_deleted(made, left)
    return result


def _matched(execution: ORMExecuteState, mapper: Mapper[Any], names: Sequence[str]) -> Before:
    """Read and lock the rows that an UPDATE or DELETE matches."""
    statement, parameters = dml_of(execution), execution.parameters
    entity = statement.entity_description["entity"]  # The class, or an alias of it.
    columns = attributes(entity, key_names(mapper))
    wanted = select(*columns, *attributes(entity, names))
    wanted = locking(wanted, mapper, None if entity is mapper.class_ else entity)
    found: dict[Key, Sequence[Any]] = {}

    def read(matching: Any, values: Any = None) -> None:
        for row in aside(execution, matching, values):
            found[tuple(row[: len(columns)])] = row[len(columns) :]

    if isinstance(parameters, list) and statement.whereclause is None:
        # An UPDATE by primary key.
        keys = [tuple(values.get(name) for name in key_names(mapper)) for values in parameters]
        for some in chunks(keys):
            read(wanted.where(among(columns, some)))
        return found
    if statement.whereclause is not None:
        wanted = wanted.where(statement.whereclause)
    for values in parameters if isinstance(parameters, list) else [parameters]:
        read(wanted, values)
    return found


def _there(execution: ORMExecuteState, mapper: Mapper[Any], keys: Sequence[Key]) -> Iterator[Key]:
    columns = attributes(mapper.class_, key_names(mapper))
    for row in aside(execution, select(*columns).where(among(columns, keys))):
        yield tuple(row)


def _written(execution: ORMExecuteState, mapper: Mapper[Any]) -> list[str]:
    """Return the attributes that an UPDATE may change and those that filters need."""
    statement, parameters = dml_of(execution), execution.parameters
    given = [
        *(getattr(statement, "_values", None) or ()),
        *(key for key, _ in getattr(statement, "_ordered_values", None) or ()),
    ]
    for values in parameters if isinstance(parameters, list) else [parameters or {}]:
        given += values
    return attribute_names(mapper, given)
