"""Former values: the fields of a changed instance before the change."""

from __future__ import annotations

import contextlib
import inspect as introspection
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.orm import (
    CompositeProperty,
    InstanceState,
    LoaderCallableStatus,
    Mapper,
    RelationshipDirection,
    RelationshipProperty,
    Session,
    SynonymProperty,
)

from thorn_sqlalchemy.models.watches import Watch
from thorn_sqlalchemy.models.written import NO_VALUE, may_differ, read_columns


def former_values(
    state: InstanceState[Any],
    before: Mapping[str, Any],
    columns: Mapping[str, Callable[[Any, Any], bool]],
    references: Collection[str],
) -> dict[str, Any] | None:
    """Return the former values of fields that a flush changed; None if there are none.

    Args:
        state: The instance's state, before the end of the flush.
        before: The known values before the UPDATE.
        columns: The comparisons of its columns' values.
        references: The instance's many-to-one relationships.
    """
    now, former, changed = state.dict, {}, False
    # Values that a flush sets after the UPDATE (post_update) are only in `committed_state`.
    before = {**state.committed_state, **before}
    for name, old in before.items():
        compare = columns.get(name)
        if compare is None:
            continue
        new = now.get(name, NO_VALUE)  # No value: the database computed it.
        if old is NO_VALUE:
            changed = True
        elif old is not new and (new is NO_VALUE or compare(old, new) is not True):
            former[name] = old
            changed = True
    if not changed:
        return None
    for name in references:
        old = before.get(name, NO_VALUE)
        if not isinstance(old, LoaderCallableStatus) and old is not now.get(name, NO_VALUE):
            former[name] = old
    return former


def unknown_names(
    state: InstanceState[Any], before: Mapping[str, Any], watch: Watch
) -> frozenset[str]:
    """Return the columns needed by filters whose former values are unknown or changed in place.

    Args:
        state: The instance's state.
        before: The known former values.
        watch: The watch of its class.
    """
    unknown = {name for name in watch.wanted & before.keys() if may_differ(before[name])}
    return frozenset(unknown | (watch.computed - state.dict.keys()))


def read_former(
    states: Iterable[InstanceState[Any]], watch: Watch, mapper: Mapper[Any], connection: Connection
) -> dict[InstanceState[Any], dict[str, Any]]:
    """Read unknown former values from rows before their UPDATE.

    Args:
        states: The states of instances of one class.
        watch: The watch of the class.
        mapper: The mapper of the class.
        connection: The flush's connection.
    """
    lacking = {}
    for state in states:
        names = unknown_names(state, state.committed_state, watch)
        if names and state.identity is not None:
            lacking[tuple(state.identity)] = state, names
    wanted = frozenset().union(*(names for _, names in lacking.values()))
    found = {}
    for key, values in read_columns(mapper, connection, list(lacking), wanted):
        if key in lacking:
            state, names = lacking[key]
            found[state] = {name: value for name, value in values.items() if name in names}
    return found


def complete(
    former: dict[str, Any],
    derived: Mapping[str, Collection[str] | None],
    instance: Any,
    session: Session,
) -> dict[str, Any]:
    """Add former values of fields that have no column and depend on a changed one.

    Args:
        former: The former values of columns.
        derived: The fields, with the columns they depend on; None stands for any.
        instance: The instance in its current state.
        session: Finds the former object of a relationship.
    """
    before = _Former(instance, former, session)
    added = {}
    for field, columns in derived.items():
        if field not in former and (columns is None or former.keys() & columns):
            # A user's property may fail on a stand-in.
            with contextlib.suppress(Exception):
                old = getattr(before, field)
                if old != getattr(instance, field):
                    added[field] = old
    return {**former, **added}


class _Former:
    """A stand-in for an instance with its known former values."""

    def __init__(self, instance: Any, former: Mapping[str, Any], session: Session) -> None:
        self.__instance = instance
        self.__former = former
        self.__session = session

    def __getattr__(self, name: str) -> Any:
        instance, former = self.__instance, self.__former
        if name in former:
            return former[name]
        mapper: Mapper[Any] = inspect(instance).mapper
        prop = mapper.attrs.get(name)
        if isinstance(prop, SynonymProperty):
            return getattr(self, prop.name)
        if isinstance(prop, CompositeProperty):
            return prop.composite_class(*(getattr(self, part.key) for part in prop.props))
        if isinstance(prop, RelationshipProperty):
            return self.__referred(mapper, prop)
        if prop is None:
            getter = getattr(introspection.getattr_static(instance, name, None), "fget", None)
            if getter is not None:  # A hybrid or a property.
                return getter(self)
        return getattr(instance, name)

    def __referred(self, mapper: Mapper[Any], prop: RelationshipProperty[Any]) -> Any:
        """Return the former object of a many-to-one relationship."""
        pairs = {
            remote: mapper.get_property_by_column(local).key
            for local, remote in prop.local_remote_pairs or ()
        }
        simple = prop.direction is RelationshipDirection.MANYTOONE and pairs.keys() == set(
            prop.mapper.primary_key
        )
        if not simple or not self.__former.keys() & set(pairs.values()):
            return getattr(self.__instance, prop.key)
        key = tuple(getattr(self, pairs[column]) for column in prop.mapper.primary_key)
        return None if None in key else self.__session.get(prop.mapper, key)
