"""Written: instances hold what their rows hold, when events are made of them."""

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
# Values of these can't have been changed in place.
FIXED = (str, bytes, int, float, Decimal, dt.date, dt.time, dt.timedelta, UUID, enum.Enum)


@attrs.frozen(eq=False)
class Written:
    """An instance whose row was inserted or updated in a flush.

    Attributes:
        watch: Of its class.
        state: Its own.
        connection: The flush's.
        before: What was known of it before the UPDATE; None if it was inserted.
    """

    watch: Watch
    state: InstanceState[Any]
    connection: Connection
    before: Mapping[str, Any] | None

    @property
    def names(self) -> Collection[str]:
        """The attributes that may hold what the program assigned."""
        if self.before is None:
            return self.state.dict
        return {*self.state.committed_state, *self.before, *self.watch.assigned}


def take_stored(rows: Iterable[Written]) -> None:
    """Bring what the program assigned into the form that the database gives back.

    Most forms follow from the columns' types; what only the database knows is read, in one SELECT
    for the instances of a class.
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
            state.dict.pop(composite.key, None)  # made anew of its columns


def _read_back(
    mapper: Mapper[Any], connection: Connection, states: Mapping[InstanceState[Any], set[str]]
) -> Iterator[tuple[InstanceState[Any], dict[str, Any]]]:
    """Read columns of rows that have just been written."""
    keys = key_names(mapper)
    by_key: dict[Key, InstanceState[Any]] = {}
    for state, names in states.items():
        key = tuple(state.dict[name] for name in keys)
        if names.isdisjoint(keys):
            by_key[key] = state
        else:  # the key may be in another form than the column's
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
        mapper: The class's.
        connection: The flush's.
        keys: Which rows.
        names: The columns' attributes.
    """
    order, of_key = sorted(names), attributes(mapper.class_, key_names(mapper))
    statement = select(*of_key, *attributes(mapper.class_, order))
    for some in chunks(keys):
        for row in connection.execute(statement.where(among(of_key, some))):
            values = row[len(of_key) :]
            yield tuple(row[: len(of_key)]), dict(zip(order, values, strict=True))


def may_differ(value: Any) -> bool:
    """True if a former value may be another than the row's: changed in place, or never loaded."""
    return value is NO_VALUE or (value is not None and not isinstance(value, FIXED))


@contextmanager
def as_before(
    state: InstanceState[Any], watch: Watch, mapper: Mapper[Any], connection: Connection
) -> Iterator[None]:
    """Let an instance hold what its row holds still, whatever was assigned and never written.

    Args:
        state: The instance's.
        watch: Of its class.
        mapper: The class's.
        connection: The flush's.
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
            # It is loaded if it is asked for, and doesn't seem to be assigned.
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
