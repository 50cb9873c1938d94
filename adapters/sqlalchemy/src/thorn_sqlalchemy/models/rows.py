"""Rows changed without the session's instances: reads them separately and sends signals."""

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

# The former values of columns by primary key.
Before = Mapping[Key, Sequence[Any]]


class Reader(Session):
    """Reads instances in another session's transaction, without affecting that session's own.

    Args:
        session: The other session.
        bind: The explicit bind of its statement, if any.
        options: The execution options of its statement.
    """

    def __init__(
        self, session: Session, bind: Any = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(autoflush=False, join_transaction_mode="rollback_only")
        self._session = session
        self._bind = bind
        self._options = options or {}

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Connection:
        """Return the other session's connection."""
        arguments = {"mapper": mapper, "clause": arguments.get("clause"), "bind": self._bind}
        given = {name: value for name, value in arguments.items() if value is not None}
        return self._session.connection(bind_arguments=given)

    def instances(
        self, mapper: Mapper[Any], keys: Collection[Key], names: Collection[str] = ()
    ) -> Iterator[list[Any]]:
        """Yield the existing instances with these primary keys, in chunks and in their order.

        Args:
            mapper: The class's mapper.
            keys: The primary keys.
            names: Deferred attributes to load.
        """
        columns = attributes(mapper.class_, key_names(mapper))
        statement = select(mapper.class_)
        deferred = [name for name in names if mapper.column_attrs[name].deferred]
        statement = statement.options(*map(undefer, attributes(mapper.class_, deferred)))
        below = [sub.class_ for sub in mapper.self_and_descendants if sub is not mapper]
        if below:
            statement = statement.options(selectin_polymorphic(mapper.class_, below))
        if names and self.get_bind(mapper).dialect.name in MYSQL:
            # Otherwise the session could show an unchanged row as of the beginning of the
            # transaction.
            statement = locking(statement, mapper)
        for some in chunks(list(keys)):
            wanted = statement.where(among(columns, some))
            found = self.scalars(wanted, execution_options=self._options).unique()
            by_key = {key_of(instance): instance for instance in found}
            # A given key may have another type than the column's.
            yield [*(by_key.pop(key) for key in some if key in by_key), *by_key.values()]
            self.expunge_all()


@contextmanager
def reading(execution: ORMExecuteState) -> Iterator[Reader]:
    """Return a reader for the transaction of a statement."""
    bind, options = execution.bind_arguments.get("bind"), _options(execution)
    with Reader(execution.session, bind, options) as reader:
        yield reader


def aside(execution: ORMExecuteState, statement: Any, values: Any = None) -> Result[Any]:
    """Execute another statement on the connection and with the options of the user's."""
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
    """Return the INSERT, UPDATE or DELETE, also from a `select().from_statement()`."""
    statement = execution.statement
    return statement.element if isinstance(statement, FromStatement) else statement


def key_of(instance: Any) -> Key:
    """Return the primary key of a persistent instance."""
    identity: Key = inspect(instance).identity
    return identity


def asked(instance: Any, trigger: str) -> Watch | None:
    """Return the watch of an instance's class if events need this trigger of statements."""
    watch = watch_of(inspect(instance).mapper)
    return watch if watch is not None and watch.bulk and getattr(watch, trigger) else None


def tell_created(session: Session, reader: Reader, mapper: Mapper[Any], keys: list[Key]) -> None:
    """Send signals for created rows with these primary keys."""

    def tell(instance: Any) -> None:
        if asked(instance, "create"):
            signals.model_created.send(type(instance), instance=instance, within=session)

    _tell_each(reader.instances(mapper, keys), tell)


def tell_changed(
    session: Session, reader: Reader, mapper: Mapper[Any], names: Sequence[str], before: Before
) -> None:
    """Send signals for rows whose values have changed.

    Args:
        session: The session of the statement.
        reader: Reads in its transaction.
        mapper: The class's mapper.
        names: The attributes in `before`.
        before: The rows' former values.
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
    """Create the messages of rows about to be deleted, by primary key."""
    made = {}
    for instances in reader.instances(mapper, keys):
        for instance in instances:
            if asked(instance, "delete"):
                held = made[key_of(instance)] = HeldEvents()
                with held:
                    signals.model_deleted.send(type(instance), instance=instance, within=session)
    return made


def tell_deleted(made: Mapping[Key, HeldEvents], left: Collection[Key]) -> None:
    """Release the messages of deleted rows."""
    together = HeldEvents()
    with together:
        for key, held in made.items():
            if key not in left:
                held.release()
    together.release()
