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
import functools
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from django.db.models.base import ModelState
from django.db.models.fields.files import FieldFile
from django.db.models.signals import post_init

from thorn_django.after_commit import after_commit, announces_commit
from thorn_django.model_events.stored import (
    IMMUTABLE,
    columns_of,
    is_plain,
    read_row,
    stored_values,
    with_values,
)
from thorn_django.model_events.watches import Watch, attributes, column

KNOWN, READ = "thorn_known", "thorn_read"
NOTHING: Mapping[str, Any] = {}


def snapshot(stored: Model, names: Iterable[str]) -> dict[str, Any]:
    """What columns hold, of an instance with the values of its row."""
    values = stored.__dict__
    return _kept({name: values[name] for name in names if name in values})


def snapshot_as_stored(instance: Model, names: Iterable[str], using: str) -> dict[str, Any]:
    """What columns hold after a save; what only the database knows is left out."""
    return _kept(stored_values(instance, names, using))


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that stay as they are, whatever the program does to the instance's.

    What can't be copied isn't remembered, and so is read before the next save.
    """
    found = {}
    for name, value in values.items():
        if type(value) in IMMUTABLE:
            found[name] = value
        elif isinstance(value, FieldFile):
            found[name] = value.name
        else:
            with contextlib.suppress(Exception):
                found[name] = copy.deepcopy(value)
    return found


def remember_loaded(instance: Model, watch: Watch, loaded: Mapping[str, Any]) -> None:
    """An instance has been loaded: one of many, so that this is to be quick.

    Args:
        instance: Whose `__init__` may have changed what was loaded.
        watch: Of its class.
        loaded: What the database gave.
    """
    values = {name: loaded[name] for name in watch.remembered if name in loaded}
    instance._state.__dict__[KNOWN] = _kept(values)


def remember_refreshed(instance: Model, watch: Watch, fields: Iterable[str] | None) -> None:
    """An instance's fields, or some of them, have been loaded again."""
    names: Iterable[str] = watch.remembered
    if fields is not None:
        chosen = {*attributes(type(instance), fields), instance._meta.pk.attname}
        names = [name for name in names if name in chosen]
    using = instance._state.db
    if using is not None:
        unsure = _changes_what_is_loaded(type(instance))
        loaded = {} if unsure else snapshot(instance, names)
        remember(instance, replaced(known(instance, using), names, loaded), using)


def replaced(
    before: Mapping[str, Any], names: Iterable[str], now: Mapping[str, Any]
) -> dict[str, Any]:
    """What is remembered once some columns hold other values, as far as those are known."""
    gone = {*names}
    return {**{name: value for name, value in before.items() if name not in gone}, **now}


def _changes_what_is_loaded(model: type[Model]) -> bool:
    """True if the values of an instance that was loaded may be others than the row's."""
    return model.__init__ is not Model.__init__ or post_init.has_listeners(model)


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
        row = read_row(instance, lacking, using)
        if row is not None:
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
        instance: As it is now, with the values of its row.
        watch: Of its class.
        names: The columns that were written.
        before: What is known of them.
    """
    now, columns = instance.__dict__, columns_of(type(instance))
    changed = {
        name
        for name in names
        if name in before and name in now
        if _differ(columns[name].field, before[name], now[name])
    }
    return FormerValues(instance, before, changed, watch.derived)


def _differ(field: Field[Any, Any], old: Any, new: Any) -> bool:
    if old is new:
        return False
    try:
        equality: Any = type(old).__eq__
        if equality is object.__eq__:
            # Of what knows no equality, by what is written.
            return bool(field.get_prep_value(old) != field.get_prep_value(new))
        return bool(old != new)
    except Exception:  # what can't be compared isn't the same
        return True


class FormerValues(Mapping[str, Any]):
    """The former values of what has changed: of columns, and of fields that depend on them.

    Those are worked out when they are looked at: the former author is loaded, a property is asked
    of an instance as it was.

    Args:
        instance: As it is now.
        before: What is known of the row before, by attribute.
        changed: The columns among those that have changed.
        derived: Other fields to answer for, and columns whose attributes depend on others.
    """

    def __init__(
        self,
        instance: Model,
        before: Mapping[str, Any],
        changed: Collection[str],
        derived: Collection[str] = (),
    ) -> None:
        self._instance = instance
        self._before = before
        self._changed = changed
        self._derived = derived if changed else ()
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._find(name)
        value = self._values[name]
        if value is _UNCHANGED:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        field = column(type(self._instance), name) if isinstance(name, str) else None
        if field is None or name in self._derived_columns:
            return super().__contains__(name)
        # No need to load what it led to.
        return field.attname in self._changed and (name == field.attname or name in self._derived)

    def __iter__(self) -> Iterator[str]:
        yield from (n for n in self._changed if n not in self._derived_columns)
        yield from (name for name in self._derived if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __bool__(self) -> bool:
        # Without working out the rest, as the length would.
        return bool(self._changed)

    @property
    def _derived_columns(self) -> Collection[str]:
        columns = columns_of(type(self._instance))
        return [name for name in self._derived if name in columns]

    @functools.cached_property
    def _former(self) -> Model:
        return _former_instance(self._instance, self._before)

    def _find(self, name: str) -> Any:
        if name in self._derived:
            return self._derive(name)
        if name not in self._changed:
            return _UNCHANGED
        found = columns_of(type(self._instance)).get(name)
        # A file's attribute makes something of its name.
        made = found is not None and not is_plain(found.field)
        return getattr(self._former, name) if made else self._before[name]

    def _derive(self, name: str) -> Any:
        field = column(type(self._instance), name)
        relation = field is not None and field.attname != name
        if relation and field is not None and field.attname not in self._changed:
            return _UNCHANGED
        # A property of the program's may not cope with an instance as it was.
        with contextlib.suppress(Exception):
            old = getattr(self._former, name)
            if relation:
                return old
            new = getattr(self._instance, name)
            if old != new if field is None else _differ(field, old, new):
                return old
        # Of a relationship: what it led to is gone.
        return None if relation else _UNCHANGED


_UNCHANGED = object()


def _former_instance(instance: Model, before: Mapping[str, Any]) -> Model:
    """An instance as it was: with its columns and what they led to, and nothing else."""
    model, columns = type(instance), columns_of(type(instance))
    former = model.__new__(model)
    former.__dict__.update({k: v for k, v in instance.__dict__.items() if k in columns})
    state = former._state = ModelState()
    state.db, state.adding = instance._state.db, False
    for name, related in instance._state.fields_cache.items():
        field = column(model, name)
        if field is not None:
            state.fields_cache[name] = related
    return with_values(former, before)
