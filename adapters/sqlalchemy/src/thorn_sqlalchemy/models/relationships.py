"""Relationships: additions to and removals from many-to-many collections, from both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
from blinker import Signal
from sqlalchemy import inspect, literal, select
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    PassiveFlag,
    RelationshipProperty,
    Session,
    UOWTransaction,
    with_parent,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BinaryExpression

from thorn_core import signals

# The loaded members, and pending additions and removals of an unloaded collection.
HISTORY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS
# In memory, such a collection may be incomplete.
PARTIAL = ("dynamic", "write_only", "noload")


@attrs.frozen
class Link:
    """A relationship whose changes also change a watched many-to-many field.

    Attributes:
        key: The relationship's name.
        field: The field's name.
        reverse: True for the opposite direction: the collection's members have the field.
        whole: Whether a loaded collection has all of the field's members.
    """

    key: str
    field: str
    reverse: bool
    whole: bool


def collections(mapper: Mapper[Any]) -> dict[str, RelationshipProperty[Any]]:
    """Return the writable many-to-many relationships of a class."""
    return {
        prop.key: prop
        for prop in mapper.relationships
        if prop.secondary is not None and not prop.viewonly
    }


def links_to(mapper: Mapper[Any], field: str) -> Iterator[tuple[Mapper[Any], Link]]:
    """Return the relationships that change a class's field, each with its class.

    These are the field itself and all relationships over the same association table, in either
    direction.
    """
    aim = collections(mapper)[field]
    yield mapper, Link(field, field, reverse=False, whole=aim.lazy not in PARTIAL)
    near, far = _ends(aim)
    for other in mapper.registry.mappers:
        if not other.configured:
            continue
        for prop in collections(other).values():
            if prop.secondary is not aim.secondary or not _same_rows(prop, aim):
                continue
            ends = _ends(prop)
            if ends == (far, near):
                yield other, Link(prop.key, field, reverse=True, whole=False)
            elif ends == (near, far) and other is mapper and prop.key != field:
                yield other, Link(prop.key, field, reverse=False, whole=False)


def _ends(prop: RelationshipProperty[Any]) -> tuple[frozenset[Any], frozenset[Any]]:
    """Return the association table's columns that refer to this side and to the other."""
    return (
        frozenset(column for _, column in prop.synchronize_pairs),
        frozenset(column for _, column in prop.secondary_synchronize_pairs or ()),
    )


def _same_rows(prop: RelationshipProperty[Any], aim: RelationshipProperty[Any]) -> bool:
    """Return False if one of them uses only some rows of the association table."""
    paired = prop.back_populates == aim.key or aim.back_populates == prop.key
    return paired or (_plain(prop) and _plain(aim))


def _plain(prop: RelationshipProperty[Any]) -> bool:
    return all(
        sum(isinstance(part, BinaryExpression) for part in visitors.iterate(join)) == len(pairs)
        for join, pairs in (
            (prop.primaryjoin, prop.synchronize_pairs),
            (prop.secondaryjoin, prop.secondary_synchronize_pairs),
        )
        if join is not None and pairs is not None
    )


# -- during a flush


@attrs.define(eq=False)
class CollectionChange:
    """The changes of one instance's field in a flush.

    Attributes:
        instance: The instance with the field.
        field: The field's name.
        added: Added instances by id.
        removed: Removed instances by id.
        own: Instances removed from the complete collection in memory; None if it isn't in memory.
        left: Whether that collection still has members.
    """

    instance: Any
    field: str
    added: dict[int, Any] = attrs.field(factory=dict)
    removed: dict[int, Any] = attrs.field(factory=dict)
    own: frozenset[int] | None = None
    left: bool = False

    def signals(
        self, session: Session, triggers: frozenset[str]
    ) -> Iterator[tuple[Signal, dict[str, Any]]]:
        """Return the signals to send, out of the wanted ones."""
        if self.added and "m2m_add" in triggers:
            yield signals.model_m2m_added, {"related": list(self.added.values())}
        if self.removed and "m2m_remove" in triggers:
            yield signals.model_m2m_removed, {"related": list(self.removed.values())}
        if self.removed and "m2m_clear" in triggers and not self._has_members(session):
            yield signals.model_m2m_cleared, {}

    def _has_members(self, session: Session) -> bool:
        if self.added:
            return True
        if self.own is not None and self.removed.keys() <= self.own:
            return self.left
        return has_members(session, self.instance, self.field)


def has_members(session: Session, instance: Any, field: str) -> bool:
    """Return True if a collection has members in the database."""
    mapper: Mapper[Any] = inspect(instance).mapper
    members = with_parent(instance, mapper.attrs[field].class_attribute)
    found = select(literal(1)).select_from(mapper.relationships[field].mapper).where(members)
    connection = session.connection(bind_arguments={"mapper": mapper})
    return connection.execute(found.limit(1)).first() is not None


class CollectionChanges:
    """The changes of collections in a flush, combined from all sides.

    Args:
        context: The flush's context.
        wanted: Tells whether events need an instance's field.
    """

    def __init__(self, context: UOWTransaction, wanted: Callable[[Any, str], bool]) -> None:
        self._context = context
        self._wanted = wanted
        self._changes: dict[tuple[int, str], CollectionChange] = {}

    def __iter__(self) -> Iterator[CollectionChange]:
        return iter(self._changes.values())

    def look(self, state: InstanceState[Any], links: Sequence[Link]) -> None:
        """Record changes of an instance's relationships during a flush."""
        session, context = self._context.session, self._context
        for link in links:
            if link.key not in state.committed_state:
                continue
            instance = state.obj()
            # Use SQLAlchemy's own history: a new one may already contain the written values.
            history = context.get_attribute_history(state, link.key, HISTORY)  # type: ignore[no-untyped-call]
            added = [item for item in _objects(history.added) if item in session]
            removed = list(_objects(history.deleted))
            if link.reverse:
                for item in added:
                    if self._wanted(item, link.field):
                        self._of(item, link.field).added[id(instance)] = instance
                for item in removed:
                    if self._wanted(item, link.field):
                        self._of(item, link.field).removed[id(instance)] = instance
            elif added or removed:
                change = self._of(instance, link.field)
                change.added.update((id(item), item) for item in added)
                change.removed.update((id(item), item) for item in removed)
                if link.whole and link.key in state.dict:
                    change.own = frozenset(map(id, removed))
                    change.left = bool(history.unchanged)

    def _of(self, instance: Any, field: str) -> CollectionChange:
        key = id(instance), field
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = CollectionChange(instance, field)
        return change


def _objects(states: Iterable[InstanceState[Any] | None]) -> Iterator[Any]:
    return (state.obj() for state in states if state is not None)
