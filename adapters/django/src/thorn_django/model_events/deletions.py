"""Deletions: the messages are made while the row is there, and sent once it has gone.

Django tells of one object several times if its class has parents with tables of their own: of the
child and of each parent, whichever was deleted. It is one deletion of one object, told as one of
the child.
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
    """The deletion of one object, under way.

    Attributes:
        model: The class that it is told of.
        root: The class whose row is the last that makes the object.
    """

    __slots__ = ("__weakref__", "_held", "model", "root")

    model: type[Model]
    root: type[Model]

    def __init__(self) -> None:
        self._held = HeldEvents()

    def __reduce__(self) -> tuple[Any, ...]:
        # An instance that was to be deleted may be pickled; this needn't survive.
        return type(None), ()

    def compose(self, instance: Model, root: type[Model], using: str) -> None:
        """Make the messages, in place of those that were made."""
        self.model, self.root, self._held = type(instance), root, HeldEvents()
        with self._held:
            signals.model_deleted.send(type(instance), instance=instance, within=using)

    def release(self) -> None:
        """Send the messages, once."""
        self._held.release()

    def give_up(self) -> None:
        """Never send them: the object is told of by another."""
        self._held = HeldEvents()


class _UnderWay(threading.local):
    """The deletions that a thread has begun, for as long as the instances live that hold them."""

    def __init__(self) -> None:
        self.removals: WeakValueDictionary[Key, Removal] = WeakValueDictionary()


_under_way = _UnderWay()


def before_delete(*, instance: Model, using: str, origin: Any = None, **_: Any) -> None:
    """An instance is about to be deleted (a receiver of `pre_delete`).

    Django has just loaded what it deletes, but for the instance whose `delete()` was called: its
    row may hold other values, or be gone.
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
    """An instance has been deleted (a receiver of `post_delete`).

    Of a child that keeps its parents (`delete(keep_parents=True)`) nothing is sent: the object is
    still there.
    """
    removal: Removal | None = instance._state.__dict__.pop(REMOVAL, None)
    if removal is not None and removal.root is concrete(type(instance)):
        with keeping(using):
            removal.release()


def _tables(model: type[Model]) -> Iterator[type[Model]]:
    """The classes whose tables have a row of an instance, as far as it sends their events."""
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
