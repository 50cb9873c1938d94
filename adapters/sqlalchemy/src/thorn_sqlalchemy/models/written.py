"""Written instances: hold the values of their rows when events are created."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
from sqlalchemy import Connection, cast, literal, select
from sqlalchemy.ext.mutable import MutableBase
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper

from thorn_sqlalchemy.models.keys import Key, among, attributes, chunks, key_names
from thorn_sqlalchemy.models.stored import UNKNOWN
from thorn_sqlalchemy.models.watches import Watch

NO_VALUE = LoaderCallableStatus.NO_VALUE
# Values of these types can't change in place.
FIXED = (str, bytes, int, float, Decimal, dt.date, dt.time, dt.timedelta, UUID, enum.Enum)


@attrs.frozen(eq=False)
class Written:
    """An instance whose row was inserted or updated in a flush.

    Attributes:
        watch: The watch of its class.
        state: The instance's state.
        connection: The flush's connection.
        before: The known values before the UPDATE; None for an inserted row.
    """

    watch: Watch
    state: InstanceState[Any]
    connection: Connection
    before: Mapping[str, Any] | None

    @property
    def names(self) -> Collection[str]:
        """The attributes that may hold values assigned by the program."""
        if self.before is None:
            return self.state.dict
        return {*self.state.committed_state, *self.before, *self.watch.assigned}


def take_stored(rows: Iterable[Written]) -> None:
    """Convert assigned values to the form that the database returns.

    Most forms follow from the columns' types. One SELECT for the instances of a class reads the
    others.
    """
    unknown: dict[tuple[Mapper[Any], Connection], dict[InstanceState[Any], set[str]]] = {}
    for row in rows:
        state, mapper, names, held = row.state, row.state.mapper, row.names, row.state.dict
        for name, convert in row.watch.converters_of(mapper, row.connection.dialect).items():
            if name not in names or name not in held:
                continue
            value = held[name]
            stored = convert(value)
            if stored is UNKNOWN:
                states = unknown.setdefault((mapper, row.connection), {})
                states.setdefault(state, set()).add(name)
            elif stored is not value:
                _replace(state, name, stored)
    for (mapper, connection), states in unknown.items():
        for state, values in _read_back(mapper, connection, states):
            for name, stored in values.items():
                _replace(state, name, stored)


def _replace(state: InstanceState[Any], name: str, stored: Any) -> None:
    value = state.dict[name]
    if isinstance(value, MutableBase):
        stored = type(value).coerce(name, stored)
        if isinstance(stored, MutableBase):
            stored._parents[state] = name
    state.dict[name] = stored
    for composite in state.mapper.composites:
        if any(part.key == name for part in composite.props):
            state.dict.pop(composite.key, None)  # Composed from its columns again.


def _read_back(
    mapper: Mapper[Any], connection: Connection, states: Mapping[InstanceState[Any], set[str]]
) -> Iterator[tuple[InstanceState[Any], dict[str, Any]]]:
    """Read columns of rows after their write."""
    keys = key_names(mapper)
    by_key: dict[Key, InstanceState[Any]] = {}
    for state, names in states.items():
        key = tuple(state.dict[name] for name in keys)
        if names.isdisjoint(keys):
            by_key[key] = state
        else:  # The key may have another form than the column's.
            cast_key = tuple(
                cast(literal(value), column.type)
                for value, column in zip(key, mapper.primary_key, strict=True)
            )
            for _, values in read_columns(mapper, connection, [cast_key], names):
                yield state, values
    wanted = frozenset().union(*(states[state] for state in by_key.values()))
    for key, values in read_columns(mapper, connection, list(by_key), wanted):
        if key in by_key:
            state = by_key[key]
            yield state, {name: value for name, value in values.items() if name in states[state]}


def read_columns(
    mapper: Mapper[Any], connection: Connection, keys: list[Key], names: Collection[str]
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Read columns of rows by their primary keys, in the flush's transaction.

    Args:
        mapper: The class's mapper.
        connection: The flush's connection.
        keys: The rows' primary keys.
        names: The attributes of the columns.
    """
    order, of_key = sorted(names), attributes(mapper.class_, key_names(mapper))
    statement = select(*of_key, *attributes(mapper.class_, order))
    for some in chunks(keys):
        for row in connection.execute(statement.where(among(of_key, some))):
            values = row[len(of_key) :]
            yield tuple(row[: len(of_key)]), dict(zip(order, values, strict=True))


def may_differ(value: Any) -> bool:
    """Return True if a former value may differ from the row's: changed in place or not loaded."""
    return value is NO_VALUE or (value is not None and not isinstance(value, FIXED))


@contextmanager
def as_before(
    state: InstanceState[Any], watch: Watch, mapper: Mapper[Any], connection: Connection
) -> Iterator[None]:
    """Restore the row's current values in an instance, in place of unwritten assignments.

    Args:
        state: The instance's state.
        watch: The watch of its class.
        mapper: The class's mapper.
        connection: The flush's connection.
    """
    columns = watch.columns or watch.resolve(mapper)
    changed = {
        name: old
        for name, old in state.committed_state.items()
        if name in columns or name in watch.references
    }
    unread = {name for name, old in changed.items() if name in columns and old is NO_VALUE}
    if unread and state.identity is not None:
        for _, values in read_columns(mapper, connection, [tuple(state.identity)], unread):
            changed |= values
    held = {name: state.dict[name] for name in changed if name in state.dict}
    history = dict(state.committed_state)
    for name, old in changed.items():
        if isinstance(old, LoaderCallableStatus):
            # Set the value without marking it as assigned; a deferred one loads on access.
            state.dict.pop(name, None)
            state.committed_state.pop(name, None)
        else:
            state.dict[name] = old
    composites = {c.key: state.dict.pop(c.key, NO_VALUE) for c in mapper.composites if changed}
    try:
        yield
    finally:
        state.dict.update(held)
        state.committed_state.update(history)
        for name, value in composites.items():
            if value is not NO_VALUE:
                state.dict[name] = value
