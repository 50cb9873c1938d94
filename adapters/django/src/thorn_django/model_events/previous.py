"""Previous values: what the fields of an instance held in the database before a save.

Only the columns that filters ask for (`state__now_eq`) are remembered: when an instance is loaded,
refreshed or saved. They are kept in its `_state`, where Django keeps such things, and so go with it
into a pickle. What isn't known when it is saved (it was built by hand with a primary key, or the
column was deferred and then set) is read with one narrow query before.

What a transaction wrote is remembered for as long as that transaction may commit, or has: after a
rollback, of a savepoint too, an instance remembers what it did before, so that saving it once more
sends what the rolled back save would have sent. What was *loaded* while a transaction was open, and
had been written by it past the instance (by `update()`, say), isn't forgotten when it rolls back.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.fields.files import FieldFile

from thorn_django.after_commit import after_commit, announces_commit
from thorn_django.model_events.watches import Watch, attnames, attributes, column

KNOWN, READ = "thorn_known", "thorn_read"
CONTAINERS = (list, dict, set, bytearray)
NOTHING: Mapping[str, Any] = {}
MISSING = object()


def snapshot(instance: Model, names: Iterable[str]) -> dict[str, Any]:
    """The values of columns as they are now; what isn't loaded, or an expression, is left out."""
    values = instance.__dict__
    return {
        name: _kept(values[name])
        for name in names
        if name in values and not hasattr(values[name], "resolve_expression")
    }


def _kept(value: Any) -> Any:
    """A value that stays as it is, whatever the program does to the instance's."""
    if isinstance(value, CONTAINERS):
        return copy.deepcopy(value)
    return value.name if isinstance(value, FieldFile) else value


def remember_loaded(instance: Model, watch: Watch) -> None:
    """An instance has been loaded: one of many, so that this is to be quick."""
    values = instance.__dict__
    instance._state.__dict__[KNOWN] = {
        name: copy.deepcopy(value) if isinstance(value, CONTAINERS) else value
        for name in watch.remembered
        if (value := values.get(name, MISSING)) is not MISSING
    }


def remember_refreshed(instance: Model, watch: Watch, fields: Iterable[str] | None) -> None:
    """An instance's fields, or some of them, have been loaded again."""
    names: Iterable[str] = watch.remembered
    if fields is not None:
        chosen = {*attributes(type(instance), fields), instance._meta.pk.attname}
        names = [name for name in names if name in chosen]
    using = instance._state.db
    if using is not None:
        values = {**known(instance, using), **snapshot(instance, names)}
        remember(instance, values, using)


def known(instance: Model, using: str) -> Mapping[str, Any]:
    """What is remembered of the row that an instance stands for in a database."""
    state = instance._state
    if state.adding or state.db != using:
        return NOTHING
    values = _standing(state.__dict__.get(KNOWN))
    # With another primary key it is another row.
    attname = instance._meta.pk.attname
    return values if values.get(attname) == instance.__dict__.get(attname) else NOTHING


def remember(instance: Model, values: Mapping[str, Any], using: str) -> None:
    """Values have been written to the database, or read from it, in the transaction that is open.

    Args:
        instance: Whose.
        values: By column.
        using: Alias of the database.
    """
    state = instance._state.__dict__
    former, connection = state.get(KNOWN), connections[using]
    if not announces_commit(connection):
        state[KNOWN] = values
    elif _standing(former) != values:
        state[KNOWN] = written = _Written(values, former)
        written.follow(connection)


def forget(instance: Model) -> None:
    """The database may hold anything now."""
    instance._state.__dict__.pop(KNOWN, None)


class _Written:
    """Values that a transaction has written, and what was known before it did."""

    __slots__ = ("_committed", "_former", "_marker", "_values")

    def __init__(self, values: Mapping[str, Any], former: Any) -> None:
        self._values = values
        self._former = former
        self._committed = False

    def follow(self, connection: BaseDatabaseWrapper) -> None:
        def committed() -> None:
            self._committed = True
            self._former = None

        # The connection alone keeps it, for as long as the transaction may yet commit.
        self._marker = weakref.ref(committed)
        after_commit(connection, committed)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(_standing(self)),)


def _standing(held: Any) -> Mapping[str, Any]:
    """Of what is remembered, that which isn't rolled back."""
    while isinstance(held, _Written):
        if held._committed or held._marker() is not None:
            return held._values
        held = held._former
    return held or NOTHING


def read_unknown(instance: Model, names: Iterable[str], using: str) -> None:
    """Read those columns of an instance's row that aren't known, for the save about to be done.

    Args:
        instance: Whose.
        names: The columns that are going to be written and asked for.
        using: Alias of the database.
    """
    state = instance._state.__dict__
    state.pop(READ, None)
    there = known(instance, using)
    key = instance._meta.pk.attname
    lacking = [n for n in names if n not in there and n in instance.__dict__ and n != key]
    if lacking and not _is_new(instance):
        rows = type(instance)._base_manager.using(using).filter(pk=instance.pk)
        for row in rows.values(*lacking):
            state[READ] = row


def _is_new(instance: Model) -> bool:
    """True if Django is sure to INSERT it."""
    meta, key = instance._meta, instance.pk
    if key is None or (isinstance(key, tuple) and None in key):
        return True
    fields = getattr(meta, "pk_fields", [meta.pk])
    return instance._state.adding and all(f.has_default() or f.has_db_default() for f in fields)


def take_known(instance: Model, using: str) -> Mapping[str, Any]:
    """What is known of an instance's row, for the save that is being done."""
    read = instance._state.__dict__.pop(READ, NOTHING)
    there = known(instance, using)
    return {**read, **there} if read else there


def former_values(
    instance: Model, watch: Watch, names: Iterable[str], before: Mapping[str, Any]
) -> FormerValues:
    """The former values of those columns that have changed.

    Args:
        instance: As it is now.
        watch: Of its class.
        names: The columns that were written.
        before: What is known of them.
    """
    now = instance.__dict__
    return FormerValues(
        instance,
        {
            name: before[name]
            for name in names
            if name in before and name in now and _differ(instance, name, before[name], now[name])
        },
        watch.derived,
    )


def _differ(instance: Model, name: str, old: Any, new: Any) -> bool:
    if old is new:
        return False
    try:
        if type(old) is not type(new) and isinstance(new, str | bytes | int | float):
            # Set by the program, it may be in another form than the database gives: "5" for 5.
            field = column(type(instance), name)
            new = new if field is None else field.to_python(new)
        return bool(old != new)
    except Exception:  # what can't be compared isn't the same
        return True


class FormerValues(Mapping[str, Any]):
    """The former values of what has changed: of columns, and of fields that depend on them.

    Those are worked out when they are looked at: the former author is loaded, a property is asked
    of an instance as it was.

    Args:
        instance: As it is now.
        columns: The former values of columns, by attribute name.
        derived: Other fields to answer for.
    """

    def __init__(
        self, instance: Model, columns: dict[str, Any], derived: Iterable[str] = ()
    ) -> None:
        self._instance = instance
        self._columns = columns
        self._derived = derived if columns else ()
        self._values: dict[str, Any] = {}
        self._former: Model | None = None

    def __getitem__(self, name: str) -> Any:
        if name in self._columns:
            return self._columns[name]
        if name not in self._values:
            if name not in self._derived:
                raise KeyError(name)
            self._values[name] = self._derive(name)
        value = self._values[name]
        if value is _UNCHANGED:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        field = column(type(self._instance), name) if isinstance(name, str) else None
        if field is not None:  # no need to load what it led to
            return field.attname in self._columns and name in {*self._columns, *self._derived}
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        yield from self._columns
        yield from (name for name in self._derived if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __bool__(self) -> bool:
        # Without working out the rest, as the length would.
        return bool(self._columns)

    def _derive(self, name: str) -> Any:
        field = column(type(self._instance), name)
        if field is not None and field.attname not in self._columns:
            return _UNCHANGED
        if self._former is None:
            self._former = _former_instance(self._instance, self._columns)
        # A property of the program's may not cope with an instance as it was.
        with contextlib.suppress(Exception):
            old = getattr(self._former, name)
            if field is not None or old != getattr(self._instance, name):
                return old
        # Of a relationship: what it led to is gone.
        return None if field is not None else _UNCHANGED


_UNCHANGED = object()


def _former_instance(instance: Model, columns: Mapping[str, Any]) -> Model:
    model = type(instance)
    former, names = model.__new__(model), set(attnames(model))
    former.__dict__.update({k: v for k, v in instance.__dict__.items() if k in names})
    former.__dict__.update(columns)
    state = former._state = ModelState()
    state.db, state.adding = instance._state.db, False
    for name, related in instance._state.fields_cache.items():
        field = column(model, name)
        if field is not None and field.attname not in columns:
            state.fields_cache[name] = related
    return former
