"""Relationships: who was added to which many-to-many collection, from whichever side."""

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

# What is loaded, and what was added to or removed from a collection that isn't.
HISTORY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS
# Such a collection in memory isn't the whole one.
PARTIAL = ("dynamic", "write_only", "noload")


@attrs.frozen
class Link:
    """A relationship whose changes are changes of a watched many-to-many field.

    Attributes:
        key: Its name.
        field: The field's.
        reverse: It leads the other way: its collection holds those whose field it is.
        whole: Once loaded, it is known what the field holds.
    """

    key: str
    field: str
    reverse: bool
    whole: bool


def collections(mapper: Mapper[Any]) -> dict[str, RelationshipProperty[Any]]:
    """The many-to-many relationships of a class that can be written."""
    return {
        prop.key: prop
        for prop in mapper.relationships
        if prop.secondary is not None and not prop.viewonly
    }


def links_to(mapper: Mapper[Any], field: str) -> Iterator[tuple[Mapper[Any], Link]]:
    """The relationships by which a class's field changes, each with the class that has it.

    Those are the field itself and every one over the same association table, in either direction.
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
    """The columns of the association table that refer to this side, and to the other."""
    return (
        frozenset(column for _, column in prop.synchronize_pairs),
        frozenset(column for _, column in prop.secondary_synchronize_pairs or ()),
    )


def _same_rows(prop: RelationshipProperty[Any], aim: RelationshipProperty[Any]) -> bool:
    """False if one of them sees only some rows of the association table."""
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


# -- in a flush


@attrs.define(eq=False)
class CollectionChange:
    """What was added to and removed from one instance's field in a flush.

    Attributes:
        instance: Whose field it is.
        field: Its name.
        added: By id.
        removed: By id.
        own: What was removed from the whole collection in memory; None if it isn't there.
        left: Whether that has members.
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
        """The signals to send, of those that are asked for."""
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
    """Ask the database whether a collection has members."""
    mapper: Mapper[Any] = inspect(instance).mapper
    members = with_parent(instance, mapper.attrs[field].class_attribute)
    found = select(literal(1)).select_from(mapper.relationships[field].mapper).where(members)
    connection = session.connection(bind_arguments={"mapper": mapper})
    return connection.execute(found.limit(1)).first() is not None


class CollectionChanges:
    """What was added to and removed from collections in a flush, pieced together from all sides.

    Args:
        context: The flush's.
        wanted: Whether an instance's field is asked for.
    """

    def __init__(self, context: UOWTransaction, wanted: Callable[[Any, str], bool]) -> None:
        self._context = context
        self._wanted = wanted
        self._changes: dict[tuple[int, str], CollectionChange] = {}

    def __iter__(self) -> Iterator[CollectionChange]:
        return iter(self._changes.values())

    def look(self, state: InstanceState[Any], links: Sequence[Link]) -> None:
        """Look at the relationships of an instance that is being flushed."""
        session, context = self._context.session, self._context
        for link in links:
            if link.key not in state.committed_state:
                continue
            instance = state.obj()
            # What SQLAlchemy went by: seen anew, it might be what has just been written.
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
