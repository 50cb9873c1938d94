"""Watches: the needs of the events of each model class, determined once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakSet

import attrs
from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, Model

from thorn_core import ConfigurationError, ModelEvent, ModelWebhooks
from thorn_core.models import webhooks_of
from thorn_django.model_events.stored import columns_of

M2M_TRIGGERS = ("m2m_add", "m2m_remove", "m2m_clear")


@attrs.define(eq=False)
class Watch:
    """The needs of the events of a model class.

    Attributes:
        create, change, delete: Whether an event needs this trigger.
        m2m: The needed triggers by many-to-many field.
        remembered: The columns whose former values filters need, and the primary key.
        derived: The fields without columns that filters need.
        generated: The columns that the database computes from others.
        events: The events of creations and changes.
        declared: The ids of the webhooks with these events, of the class and its bases.
    """

    create: bool = False
    change: bool = False
    delete: bool = False
    m2m: Mapping[str, frozenset[str]] = attrs.field(factory=dict)
    remembered: tuple[str, ...] = ()
    derived: frozenset[str] = frozenset()
    generated: tuple[str, ...] = ()
    events: tuple[ModelEvent, ...] = ()
    declared: tuple[int, ...] = ()

    def ask(self, model: type[Model]) -> None:
        """Add the needs of the events of a class and its base classes."""
        declared = declarations(model)
        created, changed = (
            [event for webhooks in declared for event in webhooks.triggered(trigger)]
            for trigger in ("create", "change")
        )
        self.declared = tuple(map(id, declared))
        self.create, self.change = bool(created), bool(changed)
        self.delete = any(webhooks.triggered("delete") for webhooks in declared)
        self.m2m = {
            field: frozenset(
                trigger
                for trigger in M2M_TRIGGERS
                if any(webhooks.triggered(trigger, field) for webhooks in declared)
            )
            for webhooks in declared
            for field in webhooks.m2m_fields
        }
        self.events = (*created, *changed)
        asked: frozenset[str] = frozenset().union(*(e.filter.now_fields for e in changed))
        self._resolve(model, asked)
        fields = model._meta.concrete_fields
        self.generated = tuple(f.attname for f in fields if getattr(f, "generated", False))

    def _resolve(self, model: type[Model], asked: frozenset[str]) -> None:
        columns, derived = set[str](), set[str]()
        for name in asked:
            field = column(model, name)
            wrapped = field is not None and columns_of(model)[field.attname].wrapped
            if field is None or wrapped:
                # A property may use any of them.
                columns.update(columns_of(model))
            else:
                columns.add(field.attname)
            if field is None or wrapped or field.attname != name:
                derived.add(name)
        # The key shows whether the instance still stands for the same row.
        keys = {model._meta.pk.attname} if columns and model._meta.pk is not None else set()
        self.remembered = tuple(n for n in columns_of(model) if n in columns | keys)
        self.derived = frozenset(derived)

    @property
    def waits(self) -> bool:
        """True if an event of a save must be sent if, and only if, the save commits."""
        return any(_waits(event) for event in self.events)


WATCH = "thorn_watch"


def watch_of(model: type[Model]) -> Watch | None:
    """Return the watch of a class, or None."""
    watch: Watch | None = model._meta.__dict__.get(WATCH)
    return watch


def make_watch(model: type[Model]) -> Watch:
    """Return the current watch of a class, stored in its `_meta`; create it if there is none."""
    watch: Watch = model._meta.__dict__.setdefault(WATCH, Watch())
    watch.ask(model)
    return watch


# Classes that Django left unfinished, because their inherited events don't fit.
refused: WeakSet[type[Model]] = WeakSet()


def declarations(model: type) -> list[ModelWebhooks]:
    """Return the webhooks of a class and of its decorated base classes."""
    declared = map(webhooks_of, model.__mro__)
    return [webhooks for webhooks in declared if webhooks is not None]


def sends(model: type[Model]) -> bool:
    """Return True if the instances of a class send events.

    Historical models of migrations also inherit from decorated classes, but send no events: they
    are in a separate registry.
    """
    meta, declared = model._meta, declarations(model)
    if meta.abstract or meta.swapped or not declared or model in refused:
        return False
    metas = [getattr(webhooks.model, "_meta", None) for webhooks in declared]
    return meta.apps is apps or any(
        other is not None and other.apps is meta.apps for other in metas
    )


def models_below(model: type[Model]) -> Iterator[type[Model]]:
    """Return a class and its subclasses that send events."""
    if sends(model):
        yield model
    for subclass in model.__subclasses__():
        yield from models_below(subclass)


def concrete(model: type[Model]) -> type[Model]:
    """Return the class with a class's table: for a proxy, the proxied class."""
    found = model._meta.concrete_model
    assert found is not None
    return found


def column(model: type[Model], name: str) -> Field[Any, Any] | None:
    """Return the field with a column and this name, `author` or `author_id`, or None."""
    if name == "pk":
        name = model._meta.pk.name
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, Field) and field.concrete and not field.many_to_many else None


def attributes(model: type[Model], names: Iterable[str]) -> list[str]:
    """Return the attributes of the columns with these names; leave out names without a column."""
    found = (column(model, name) for name in names)
    return [field.attname for field in found if field is not None]


def _waits(event: ModelEvent) -> bool:
    if event.signal_honors_transaction is not None:
        return event.signal_honors_transaction
    try:
        return event.app.settings.signal_honors_transaction
    except ConfigurationError:
        return True  # There is no app; sending the event reports it.
