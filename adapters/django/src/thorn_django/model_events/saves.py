"""Saves: sends signals for created and changed instances in the transaction that writes them.

Django sends `post_save` after the write, and so after the commit if no transaction is open. A crash
or a failing receiver in between would lose the event. So Thorn sends the events where Django writes
the row. If no transaction is open, it opens one around the write and the message; receivers of
`post_save` run after it, as usual.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import django
from django.db.models import Model

from thorn_core import signals
from thorn_django.model_events import previous
from thorn_django.model_events.stored import IMMUTABLE, as_stored
from thorn_django.model_events.telling import tell, together
from thorn_django.model_events.watches import Watch, attributes, concrete, watch_of

SAVING = "thorn_saving"
UPDATES_RETURN = django.VERSION >= (6, 0)


def before_save(
    *,
    instance: Model,
    raw: bool,
    using: str,
    update_fields: Iterable[str] | None,
    **_: Any,
) -> None:
    """Prepare the save of an instance (a receiver of `pre_save`)."""
    watch = watch_of(type(instance))
    if watch is not None and not raw:
        previous.read_unknown(instance, _written_of(watch, instance, update_fields), using)


def told(save_table: Callable[..., bool]) -> Callable[..., bool]:
    """Wrap a model's `_save_table` so that it sends signals for its writes."""

    @functools.wraps(save_table)
    def _save_table(
        self: Model,
        raw: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        cls: type[Model] | None = None,
        force_insert: bool = False,  # noqa: FBT001, FBT002
        force_update: bool = False,  # noqa: FBT001, FBT002
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> bool:
        def save() -> bool:
            return save_table(self, raw, cls, force_insert, force_update, using, update_fields)

        watch = watch_of(type(self))
        # Django writes the parents' tables first and the own one last; then all is written.
        if watch is None or cls is not concrete(type(self)) or using is None:
            return save()
        state = self._state.__dict__
        if SAVING in state:  # A parent class sends the signals, too.
            return save()
        if raw:
            previous.forget(self)
            return save()
        before = previous.take_known(self, using)
        former = self._state.db, self._state.adding
        try:
            # An UPDATE without a matching row becomes an INSERT.
            with together(using) if watch.waits else nullcontext():
                state[SAVING] = True
                try:
                    updated = save()
                finally:
                    del state[SAVING]
                # Django sets these a moment later, but payload methods may need related objects
                # now.
                self._state.db, self._state.adding = using, False
                now = _tell(self, watch, using, update_fields, before if updated else None)
        except BaseException:
            self._state.db, self._state.adding = former
            raise
        if watch.remembered:
            previous.remember(self, now, using)
        return updated

    return _save_table


def _tell(
    instance: Model,
    watch: Watch,
    using: str,
    update_fields: Iterable[str] | None,
    before: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Send signals for a saved instance.

    Args:
        instance: The instance.
        watch: The watch of its class.
        using: Alias of the database.
        update_fields: The written fields; None means all.
        before: The known values of its row before the UPDATE; None after an INSERT.

    Returns:
        The known values of its row.
    """
    if before is None:
        if not watch.create:
            return previous.snapshot_as_stored(instance, watch.remembered, using)
        instance = as_stored(instance, using)
        tell(signals.model_created, instance, using)
        return previous.snapshot(instance, watch.remembered)
    names = _written_of(watch, instance, update_fields)
    if watch.change:
        stale = [*_stale(instance, watch, names, before)]
        written = _known_after(instance, update_fields, before)
        instance = as_stored(instance, using, written=written, stale=stale)
        values = previous.former_values(instance, watch, names, before)
        tell(signals.model_changed, instance, using, previous=values)
    return previous.replaced(before, names, previous.snapshot(instance, names))


def _known_after(
    instance: Model, update_fields: Iterable[str] | None, before: Mapping[str, Any]
) -> Collection[str] | None:
    """Return the columns that the instance holds as written; None for all.

    Fields outside `update_fields` may have assigned values that the row doesn't have.
    """
    if update_fields is None:
        return None
    values, model = instance.__dict__, type(instance)
    unchanged = {
        name
        for name, value in before.items()
        if type(value) in IMMUTABLE and type(values.get(name)) is type(value)
        if values[name] == value
    }
    return unchanged.union(attributes(model, update_fields), [model._meta.pk.attname])


def _written_of(
    watch: Watch, instance: Model, update_fields: Iterable[str] | None
) -> Sequence[str]:
    """Return the stored columns that a save writes, and the primary key."""
    if update_fields is None:
        return watch.remembered
    chosen = {*attributes(type(instance), update_fields), *watch.generated}
    chosen.add(instance._meta.pk.attname)
    return [name for name in watch.remembered if name in chosen]


def _stale(
    instance: Model, watch: Watch, names: Iterable[str], before: Mapping[str, Any]
) -> Iterator[str]:
    """Return the columns whose values an updated instance lacks or holds in an outdated state.

    Up to Django 5.2, an UPDATE doesn't refresh generated columns of the instance. Later versions
    return the computed values, or remove them from the instance if the database can't return them.
    """
    values = instance.__dict__
    if not UPDATES_RETURN:
        yield from (name for name in watch.generated if name in values)
    yield from (name for name in names if name in before and name not in values)
