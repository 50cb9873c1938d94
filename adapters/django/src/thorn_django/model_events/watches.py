"""Watches: what each model class is watched for, worked out once."""

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
    """What a model class is watched for.

    Attributes:
        create, change, delete: Some event asks for it.
        m2m: Which triggers are asked for, by many-to-many field.
        remembered: The columns whose former values filters come down to, and the primary key.
        derived: The fields that filters ask for and that aren't columns.
        generated: The columns that the database computes from others.
        events: Those of creations and changes.
        declared: Whose events there are, its own and those of its bases: the ids of their webhooks.
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
        """Ask for what the events of a class, and of those it inherits from, need."""
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
                # A property may look at any of them.
                columns.update(columns_of(model))
            else:
                columns.add(field.attname)
            if field is None or wrapped or field.attname != name:
                derived.add(name)
        # The key says whether the instance still is the one whose values they were.
        keys = {model._meta.pk.attname} if columns and model._meta.pk is not None else set()
        self.remembered = tuple(n for n in columns_of(model) if n in columns | keys)
        self.derived = frozenset(derived)

    @property
    def waits(self) -> bool:
        """Whether some event of a save is to be sent if, and only if, the save is committed."""
        return any(_waits(event) for event in self.events)


WATCH = "thorn_watch"


def watch_of(model: type[Model]) -> Watch | None:
    """The watch of a class, if there is one."""
    watch: Watch | None = model._meta.__dict__.get(WATCH)
    return watch


def make_watch(model: type[Model]) -> Watch:
    """The watch of a class, made if there is none, up to date; its `_meta` keeps it."""
    watch: Watch = model._meta.__dict__.setdefault(WATCH, Watch())
    watch.ask(model)
    return watch


# Classes that Django never finished, because the events they inherit don't fit them.
refused: WeakSet[type[Model]] = WeakSet()


def declarations(model: type) -> list[ModelWebhooks]:
    """The webhooks of a class and of the decorated classes it inherits from."""
    declared = map(webhooks_of, model.__mro__)
    return [webhooks for webhooks in declared if webhooks is not None]


def sends(model: type[Model]) -> bool:
    """True if the instances of a class send events.

    The models that migrations work with inherit from decorated classes too, but send nothing: they
    are in a registry of their own.
    """
    meta, declared = model._meta, declarations(model)
    if meta.abstract or meta.swapped or not declared or model in refused:
        return False
    metas = [getattr(webhooks.model, "_meta", None) for webhooks in declared]
    return meta.apps is apps or any(
        other is not None and other.apps is meta.apps for other in metas
    )


def models_below(model: type[Model]) -> Iterator[type[Model]]:
    """A class and its subclasses, those that send events."""
    if sends(model):
        yield model
    for subclass in model.__subclasses__():
        yield from models_below(subclass)


def concrete(model: type[Model]) -> type[Model]:
    """The class whose table holds a class's instances: of a proxy, the one it stands for."""
    found = model._meta.concrete_model
    assert found is not None
    return found


def column(model: type[Model], name: str) -> Field[Any, Any] | None:
    """The field with a column that goes by a name, `author` or `author_id`; None if none does."""
    if name == "pk":
        name = model._meta.pk.name
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, Field) and field.concrete and not field.many_to_many else None


def attributes(model: type[Model], names: Iterable[str]) -> list[str]:
    """The attributes of the columns that go by these names; those without one are left out."""
    found = (column(model, name) for name in names)
    return [field.attname for field in found if field is not None]


def _waits(event: ModelEvent) -> bool:
    if event.signal_honors_transaction is not None:
        return event.signal_honors_transaction
    try:
        return event.app.settings.signal_honors_transaction
    except ConfigurationError:
        return True  # there is no app: that is said when the event is sent
