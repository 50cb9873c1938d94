"""Deletions: creates messages while the row exists, and sends them after its deletion.

If a class has parents with their own tables, Django sends signals for the child and for each
parent, whichever was deleted. Thorn treats them as one deletion of the child.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

from django.db.models import Model

from thorn_core import HeldEvents, signals
from thorn_django.model_events.stored import as_row
from thorn_django.model_events.telling import check_transaction, keeping
from thorn_django.model_events.watches import concrete, watch_of

REMOVAL = "thorn_removal"

Key = tuple[str, str, Any]


class Removal:
    """The deletion of one object in progress.

    Attributes:
        model: The class whose events are sent.
        root: The class with the object's last row.
    """

    __slots__ = ("__weakref__", "_held", "model", "root")

    model: type[Model]
    root: type[Model]

    def __init__(self) -> None:
        self._held = HeldEvents()

    def __reduce__(self) -> tuple[Any, ...]:
        # A program may pickle an instance before its deletion; don't pickle this.
        return type(None), ()

    def compose(self, instance: Model, root: type[Model], using: str) -> None:
        """Create the messages, in place of earlier ones."""
        self.model, self.root, self._held = type(instance), root, HeldEvents()
        with self._held:
            signals.model_deleted.send(type(instance), instance=instance, within=using)

    def release(self) -> None:
        """Send the messages once."""
        self._held.release()

    def give_up(self) -> None:
        """Drop the messages: another deletion reports the object."""
        self._held = HeldEvents()


class _UnderWay(threading.local):
    """The deletions of a thread, as long as their instances live."""

    def __init__(self) -> None:
        self.removals: WeakValueDictionary[Key, Removal] = WeakValueDictionary()


_under_way = _UnderWay()


def before_delete(*, instance: Model, using: str, origin: Any = None, **_: Any) -> None:
    """Prepare the messages of an instance about to be deleted (a receiver of `pre_delete`).

    Django has just loaded the instances that it deletes, except the one whose `delete()` was
    called: its row may have other values, or be missing.
    """
    instance._state.__dict__.pop(REMOVAL, None)
    stored = as_row(instance, using) if origin is instance else instance
    if stored is None:
        return
    removals, model = _under_way.removals, type(instance)
    tables = list(_tables(model))
    keys = [(using, table._meta.label, _key_in(instance, table)) for table in tables]
    removal = removals.get(keys[-1]) or Removal()
    instance._state.__dict__[REMOVAL] = removal
    told = getattr(removal, "model", None)
    if told is not None and told is not model and issubclass(told, model):
        return
    for key in keys:
        other = removals.get(key)
        if other is not None and other is not removal:
            other.give_up()
        removals[key] = removal
    removal.compose(stored, tables[-1], using)
    check_transaction(using)


def after_delete(*, instance: Model, using: str, **_: Any) -> None:
    """Send the messages of a deleted instance (a receiver of `post_delete`).

    If a child keeps its parents (`delete(keep_parents=True)`), no message is sent, because the
    object still exists.
    """
    removal: Removal | None = instance._state.__dict__.pop(REMOVAL, None)
    if removal is not None and removal.root is concrete(type(instance)):
        with keeping(using):
            removal.release()


def _tables(model: type[Model]) -> Iterator[type[Model]]:
    """Return the classes with a table row of an instance, among those that send its events."""
    own = concrete(model)
    yield own
    for cls in model.__mro__:
        meta = getattr(cls, "_meta", None)
        if cls is own or meta is None or meta.abstract or meta.proxy:
            continue
        watch = watch_of(cls)
        if watch is not None and watch.delete:
            yield cls


def _key_in(instance: Model, table: type[Model]) -> Any:
    return getattr(instance, table._meta.pk.attname)
