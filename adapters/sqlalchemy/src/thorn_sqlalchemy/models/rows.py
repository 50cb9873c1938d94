"""Rows changed past the session's instances: read apart from it, and told one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Result, inspect, select
from sqlalchemy.orm import (
    FromStatement,
    Mapper,
    ORMExecuteState,
    Session,
    selectin_polymorphic,
    undefer,
)

from thorn_core import HeldEvents, signals
from thorn_sqlalchemy.models.former import complete
from thorn_sqlalchemy.models.keys import Key, among, attributes, chunks, key_names, locking
from thorn_sqlalchemy.models.watches import Watch, watch_of

MYSQL = ("mysql", "mariadb")

# What the rows held before, of these columns, by primary key.
Before = Mapping[Key, Sequence[Any]]


class Reader(Session):
    """Reads instances in another session's transaction, without touching that session's own.

    Args:
        session: The other one.
        bind: What its statement was bound to, if that was said.
        options: How it is executed.
    """

    def __init__(
        self, session: Session, bind: Any = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(autoflush=False, join_transaction_mode="rollback_only")
        self._session = session
        self._bind = bind
        self._options = options or {}

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Connection:
        """The other session's connection."""
        arguments = {"mapper": mapper, "clause": arguments.get("clause"), "bind": self._bind}
        given = {name: value for name, value in arguments.items() if value is not None}
        return self._session.connection(bind_arguments=given)

    def instances(
        self, mapper: Mapper[Any], keys: Collection[Key], names: Collection[str] = ()
    ) -> Iterator[list[Any]]:
        """The instances of these primary keys that there are, some at a time, in that order.

        Args:
            mapper: The class's.
            keys: Which.
            names: Attributes to be loaded although they are deferred.
        """
        columns = attributes(mapper.class_, key_names(mapper))
        statement = select(mapper.class_)
        deferred = [name for name in names if mapper.column_attrs[name].deferred]
        statement = statement.options(*map(undefer, attributes(mapper.class_, deferred)))
        below = [sub.class_ for sub in mapper.self_and_descendants if sub is not mapper]
        if below:
            statement = statement.options(selectin_polymorphic(mapper.class_, below))
        if names and self.get_bind(mapper).dialect.name in MYSQL:
            # Else a row that hasn't changed may be seen as it was when the transaction began.
            statement = locking(statement, mapper)
        for some in chunks(list(keys)):
            wanted = statement.where(among(columns, some))
            found = self.scalars(wanted, execution_options=self._options).unique()
            by_key = {key_of(instance): instance for instance in found}
            # A key that was given may be of another type than the column's.
            yield [*(by_key.pop(key) for key in some if key in by_key), *by_key.values()]
            self.expunge_all()


@contextmanager
def reading(execution: ORMExecuteState) -> Iterator[Reader]:
    """A reader of the transaction in which a statement is executed."""
    bind, options = execution.bind_arguments.get("bind"), _options(execution)
    with Reader(execution.session, bind, options) as reader:
        yield reader


def aside(execution: ORMExecuteState, statement: Any, values: Any = None) -> Result[Any]:
    """Execute another statement where and as the user's is executed."""
    bind = execution.bind_arguments.get("bind")
    return execution.session.execute(
        statement,
        values,
        bind_arguments=None if bind is None else {"bind": bind},
        execution_options=_options(execution),
    )


def _options(execution: ORMExecuteState) -> dict[str, Any]:
    options = execution.execution_options
    return {
        name: options[name] for name in ("autoflush", "schema_translate_map") if name in options
    }


def dml_of(execution: ORMExecuteState) -> Any:
    """The INSERT, UPDATE or DELETE, also where a `select().from_statement()` is made of it."""
    statement = execution.statement
    return statement.element if isinstance(statement, FromStatement) else statement


def key_of(instance: Any) -> Key:
    """The primary key of a persistent instance."""
    identity: Key = inspect(instance).identity
    return identity


def asked(instance: Any, trigger: str) -> Watch | None:
    """The watch of an instance's class, if it asks for a trigger and for statements."""
    watch = watch_of(inspect(instance).mapper)
    return watch if watch is not None and watch.bulk and getattr(watch, trigger) else None


def tell_created(session: Session, reader: Reader, mapper: Mapper[Any], keys: list[Key]) -> None:
    """Send that the rows of these primary keys have been created."""

    def tell(instance: Any) -> None:
        if asked(instance, "create"):
            signals.model_created.send(type(instance), instance=instance, within=session)

    _tell_each(reader.instances(mapper, keys), tell)


def tell_changed(
    session: Session, reader: Reader, mapper: Mapper[Any], names: Sequence[str], before: Before
) -> None:
    """Send of those rows that have changed what they held before.

    Args:
        session: Where the statement was executed.
        reader: Of it.
        mapper: The class's.
        names: The attributes that `before` has the values of.
        before: What the rows held.
    """

    def tell(instance: Any) -> None:
        watch = asked(instance, "change")
        if watch is None:
            return
        columns = watch.columns or watch.resolve(inspect(instance).mapper)
        former = {
            name: old
            for name, old in zip(names, before[key_of(instance)], strict=True)
            if columns[name](old, getattr(instance, name)) is not True
        }
        if former:
            former = complete(former, watch.derived, instance, reader)
            signals.model_changed.send(
                type(instance), instance=instance, previous=former, within=session
            )

    _tell_each(reader.instances(mapper, before.keys(), names), tell)


def _tell_each(found: Iterable[list[Any]], tell: Callable[[Any], None]) -> None:
    held = HeldEvents()
    for instances in found:
        with held:
            for instance in instances:
                tell(instance)
        held.release()


def hold_deleted(
    session: Session, reader: Reader, mapper: Mapper[Any], keys: list[Key]
) -> dict[Key, HeldEvents]:
    """Make the messages of rows about to be deleted, by primary key."""
    made = {}
    for instances in reader.instances(mapper, keys):
        for instance in instances:
            if asked(instance, "delete"):
                held = made[key_of(instance)] = HeldEvents()
                with held:
                    signals.model_deleted.send(type(instance), instance=instance, within=session)
    return made


def tell_deleted(made: Mapping[Key, HeldEvents], left: Collection[Key]) -> None:
    """Release the messages of rows that have gone."""
    together = HeldEvents()
    with together:
        for key, held in made.items():
            if key not in left:
                held.release()
    together.release()
