"""Changes: records a flush's changes of watched instances, and sends signals at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import attrs
from blinker import Signal
from sqlalchemy import Connection, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, UOWTransaction

from thorn_core import HeldEvents, signals
from thorn_sqlalchemy.models.former import (
    complete,
    former_values,
    read_former,
    unknown_names,
)
from thorn_sqlalchemy.models.relationships import CollectionChanges
from thorn_sqlalchemy.models.watches import Watch, watch_of
from thorn_sqlalchemy.models.written import NO_VALUE, Written, as_before, take_stored

INFO = "thorn_flush"
# The number of messages in one INSERT.
BATCH = 1000
NOTHING: Mapping[str, Any] = {}


@attrs.define(eq=False)
class Flush:
    """The changes of a flush so far.

    Attributes:
        rows: The inserted and updated instances, in that order.
        read: Former values that had to be read from the database.
        gone: Messages of deletions; they wait for the success of the flush.
        replaced: Messages of deleted rows that a new instance has replaced.
        told: Signals to send.
        collections: Changes of many-to-many collections.
    """

    rows: list[Written] = attrs.field(factory=list)
    read: dict[InstanceState[Any], dict[str, Any]] = attrs.field(factory=dict)
    gone: HeldEvents | None = None
    replaced: HeldEvents | None = None
    told: list[tuple[Signal, Any, Watch, dict[str, Any] | None]] = attrs.field(factory=list)
    collections: CollectionChanges | None = None


def _flush_of(session: Session) -> Flush:
    flush: Flush | None = session.info.get(INFO)
    if flush is None:
        flush = session.info[INFO] = Flush()
    return flush


# -- during the flush: listeners of a mapper


def inserted(
    watch: Watch, mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]
) -> None:
    """Record an inserted row."""
    if watch.columns is None:
        watch.resolve(mapper)
    _flush_of(_session(state)).rows.append(Written(watch, state, connection, None))


def updating(
    watch: Watch, mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]
) -> None:
    """Before a possible UPDATE, save former values, which are still known or readable."""
    if watch.columns is None:
        watch.resolve(mapper)
    flush, before = _flush_of(_session(state)), NOTHING
    if watch.change:
        before = state.committed_state.copy()
        if watch.wanted:
            _add_wanted(flush, before, watch, mapper, connection, state)
    flush.rows.append(Written(watch, state, connection, before))


def _add_wanted(
    flush: Flush,
    before: dict[str, Any],
    watch: Watch,
    mapper: Mapper[Any],
    connection: Connection,
    state: InstanceState[Any],
) -> None:
    for name in watch.computed:
        if name not in before:
            before[name] = state.dict.get(name, NO_VALUE)
    if not unknown_names(state, before, watch):
        return
    if state not in flush.read:
        others = (inspect(instance) for instance in _session(state).dirty)
        unread = {other for other in others if other.mapper is mapper} - flush.read.keys()
        flush.read |= read_former({state, *unread}, watch, mapper, connection)
    before.update(flush.read.get(state, NOTHING))


def updated(
    watch: Watch, mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]
) -> None:
    """Record an updated row, or a new instance that replaces one deleted in the same flush."""
    if state.key is not None:
        return
    if watch.columns is None:
        watch.resolve(mapper)
    session = _session(state)
    flush, instance = _flush_of(session), state.obj()
    former = session.identity_map.get(mapper.identity_key_from_instance(instance))
    if former is not None and watch.delete:
        if flush.replaced is None:
            flush.replaced = HeldEvents()
        with flush.replaced:
            signals.model_deleted.send(type(former), instance=former, within=session)
    flush.rows.append(Written(watch, state, connection, None))


def deleting(
    watch: Watch, mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]
) -> None:
    """Create the messages for a row before its deletion, and hold them until the flush ends."""
    session, instance = _session(state), state.obj()
    flush = _flush_of(session)
    if flush.gone is None:
        flush.gone = HeldEvents()
    with flush.gone, as_before(state, watch, mapper, connection):
        signals.model_deleted.send(type(instance), instance=instance, within=session)


def _session(state: InstanceState[Any]) -> Session:
    session = state.session
    assert session is not None
    return session


# -- at the end of the flush: listeners of sessions


def gather_changes(session: Session, context: UOWTransaction) -> None:
    """Determine the changes after all writes, while the former values are still known."""
    flush: Flush | None = session.info.get(INFO)
    if flush is None:
        return

    def wanted(instance: Any, field: str) -> bool:
        state: InstanceState[Any] = inspect(instance)
        watch = watch_of(state.mapper)
        deleted = context.is_deleted(state)  # type: ignore[no-untyped-call]
        return watch is not None and field in watch.fields and not deleted

    take_stored(flush.rows)
    for row in flush.rows:
        watch, state, before = row.watch, row.state, row.before
        if before is None:
            if watch.create:
                flush.told.append((signals.model_created, state.obj(), watch, None))
        elif watch.change:
            assert watch.columns is not None
            former = former_values(state, before, watch.columns, watch.references)
            if former is not None:
                flush.told.append((signals.model_changed, state.obj(), watch, former))
        if watch.links and state.committed_state:
            if flush.collections is None:
                flush.collections = CollectionChanges(context, wanted)
            flush.collections.look(state, watch.links)
    flush.rows.clear()


def send_changes(session: Session, context: UOWTransaction) -> None:
    """Send the signals and publish the messages before the flush's transaction can commit.

    The event handles exceptions of payload methods and filters. An exception of the store rolls the
    flush back, so that no change is committed without its message.
    """
    flush: Flush | None = session.info.pop(INFO, None)
    if flush is None:
        return
    if flush.replaced is not None:
        flush.replaced.release()
    held, signalled = HeldEvents(), _signals(flush, session)
    while batch := list(islice(signalled, BATCH)):
        with held:
            for signal, instance, values in batch:
                signal.send(type(instance), instance=instance, within=session, **values)
        held.release()
    if flush.gone is not None:
        flush.gone.release()


def _signals(flush: Flush, session: Session) -> Iterator[tuple[Signal, Any, Mapping[str, Any]]]:
    for signal, instance, watch, former in flush.told:
        if former is None:
            yield signal, instance, NOTHING
        else:
            previous = complete(former, watch.derived, instance, session)
            yield signal, instance, {"previous": previous}
    for change in flush.collections or ():
        owner = watch_of(inspect(change.instance).mapper)
        assert owner is not None
        for signal, values in change.signals(session, owner.fields[change.field]):
            yield signal, change.instance, {"field": change.field, **values}


def begin(session: Session, *_: Any) -> None:
    """Begin a flush: drop the records of one that never ended."""
    session.info.pop(INFO, None)


def forget_changes(session: Session, transaction: SessionTransaction) -> None:
    """Drop the records of a failed flush."""
    if transaction.parent is not None and not transaction.nested:
        session.info.pop(INFO, None)
