"""Previous values: an instance's fields in the database before a save.

Loading, refreshing or saving an instance stores the columns that filters need (`state__now_eq`).
They are in the instance's `_state`, as Django's own data, so a pickle includes them. Before a save,
one narrow query reads unknown values, such as those of an instance built with a primary key, or of
a deferred column with an assigned value.

Values written in a transaction are valid while it may commit, or after its commit. After a
rollback, also of a savepoint, the earlier values apply again, so that another save sends the same
events. Values that were *loaded* in a transaction after it had written them without the instance
(such as by `update()`) stay after its rollback.
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
    """Return the columns of an instance that has its row's values."""
    values = stored.__dict__
    return _kept({name: values[name] for name in names if name in values})


def snapshot_as_stored(instance: Model, names: Iterable[str], using: str) -> dict[str, Any]:
    """Return the columns after a save, without those that only the database knows."""
    return _kept(stored_values(instance, names, using))


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that later changes of the instance don't affect.

    A value without a copy is left out, and so is read before the next save.
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
    """Store the columns of a loaded instance; this must be fast.

    Args:
        instance: The instance; its `__init__` may have changed the loaded values.
        watch: The watch of its class.
        loaded: The values from the database.
    """
    values = {name: loaded[name] for name in watch.remembered if name in loaded}
    instance._state.__dict__[KNOWN] = _kept(values)


def remember_refreshed(instance: Model, watch: Watch, fields: Iterable[str] | None) -> None:
    """Update the stored columns after a refresh of some or all fields."""
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
    """Return the stored columns after changes of some, as far as they are known."""
    gone = {*names}
    return {**{name: value for name, value in before.items() if name not in gone}, **now}


def _changes_what_is_loaded(model: type[Model]) -> bool:
    """Return True if a loaded instance's values may differ from its row's."""
    return model.__init__ is not Model.__init__ or post_init.has_listeners(model)


def known(instance: Model, using: str) -> Mapping[str, Any]:
    """Return the known columns of an instance's row in a database."""
    state = instance._state
    if state.adding or state.db != using:
        return NOTHING
    values = _standing(state.__dict__.get(KNOWN))
    # With another primary key, it is another row.
    attname = instance._meta.pk.attname
    return values if values.get(attname) == instance.__dict__.get(attname) else NOTHING


def remember(instance: Model, values: Mapping[str, Any], using: str) -> None:
    """Store values that the open transaction has written or read.

    Args:
        instance: The instance.
        values: The values by column.
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
    """Drop all stored columns: the row may have any values now."""
    instance._state.__dict__.pop(KNOWN, None)


class _Written:
    """Values that a transaction has written, and the known values before."""

    __slots__ = ("_committed", "_former", "_marker", "_values")

    def __init__(self, values: Mapping[str, Any], former: Any) -> None:
        self._values = values
        self._former = former
        self._committed = False

    def follow(self, connection: BaseDatabaseWrapper) -> None:
        def committed() -> None:
            self._committed = True
            self._former = None

        # Only the connection holds a reference, as long as the transaction may commit.
        self._marker = weakref.ref(committed)
        after_commit(connection, committed)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(_standing(self)),)


def _standing(held: Any) -> Mapping[str, Any]:
    """Return the stored values that are not rolled back."""
    while isinstance(held, _Written):
        if held._committed or held._marker() is not None:
            return held._values
        held = held._former
    return held or NOTHING


def read_unknown(instance: Model, names: Iterable[str], using: str) -> None:
    """Read unknown columns of an instance's row before a save.

    Args:
        instance: The instance.
        names: The columns that the save writes and filters need.
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
    """Return True if Django will certainly INSERT the instance."""
    meta, key = instance._meta, instance.pk
    if key is None or (isinstance(key, tuple) and None in key):
        return True
    fields = getattr(meta, "pk_fields", [meta.pk])
    return instance._state.adding and all(f.has_default() or f.has_db_default() for f in fields)


def take_known(instance: Model, using: str) -> Mapping[str, Any]:
    """Return the known columns of an instance's row for the current save."""
    read = instance._state.__dict__.pop(READ, NOTHING)
    there = known(instance, using)
    return {**read, **there} if read else there


def former_values(
    instance: Model, watch: Watch, names: Iterable[str], before: Mapping[str, Any]
) -> FormerValues:
    """Return the former values of changed columns.

    Args:
        instance: The instance with the current values of its row.
        watch: The watch of its class.
        names: The written columns.
        before: The known former values.
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
            # Compare values without equality by their stored form.
            return bool(field.get_prep_value(old) != field.get_prep_value(new))
        return bool(old != new)
    except Exception:  # Values that can't be compared count as different.
        return True


class FormerValues(Mapping[str, Any]):
    """The former values of changed columns, and of fields that depend on them.

    Dependent fields are evaluated on access: the former author is loaded, a property is evaluated
    on a former instance.

    Args:
        instance: The instance in its current state.
        before: The known former values of the row, by attribute.
        changed: The columns in `before` that have changed.
        derived: Further fields, and columns whose attributes depend on other columns.
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
        # Don't load the related object.
        return field.attname in self._changed and (name == field.attname or name in self._derived)

    def __iter__(self) -> Iterator[str]:
        yield from (n for n in self._changed if n not in self._derived_columns)
        yield from (name for name in self._derived if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __bool__(self) -> bool:
        # Don't evaluate the others, as the length would.
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
        # A file's attribute wraps its name.
        made = found is not None and not is_plain(found.field)
        return getattr(self._former, name) if made else self._before[name]

    def _derive(self, name: str) -> Any:
        field = column(type(self._instance), name)
        relation = field is not None and field.attname != name
        if relation and field is not None and field.attname not in self._changed:
            return _UNCHANGED
        # A program's property may fail on a former instance.
        with contextlib.suppress(Exception):
            old = getattr(self._former, name)
            if relation:
                return old
            new = getattr(self._instance, name)
            if old != new if field is None else _differ(field, old, new):
                return old
        # A relationship to a deleted object.
        return None if relation else _UNCHANGED


_UNCHANGED = object()


def _former_instance(instance: Model, before: Mapping[str, Any]) -> Model:
    """Return a former instance with only its columns and their related objects."""
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
