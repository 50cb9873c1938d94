"""Many-to-many fields: who was added and removed, from whichever side.

Thorn's triggers are about the instance whose field it is. So `tag.articles.add(article)` adds to
`article.tags`, and is told of the article, as `article.tags.add(tag)` is. What Django's
`m2m_changed` says becomes:

- added: those that weren't there before.
- removed: those that were there: by `remove()`, `set()` and `clear()`. To know them, they are read
  from the table in between before, if an event asks for them.
- cleared: `clear()`, or `set(clear=True)`, has emptied the field; of one that was empty already
  nothing is sent. `tag.articles.clear()` clears no article's tags: each has lost one.

Rows of the table in between that are written in other ways (an explicit `through` model's own
`save()`, a cascade, `bulk_create`) aren't told of, as Django doesn't: let that model send events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from blinker import Signal
from django.db.models import ForeignKey, ManyToManyField, ManyToManyRel, Model
from django.db.models.signals import m2m_changed

from thorn_core import ConfigurationError, signals
from thorn_django.model_events.fixtures import being_loaded
from thorn_django.model_events.stored import as_row
from thorn_django.model_events.telling import chunks, instances_of, tell_each
from thorn_django.model_events.watches import concrete, models_below, watch_of

UID = "thorn_django.model_events"
LINKS = "thorn_links"


@attrs.frozen
class Side:
    """One side of a many-to-many relationship: the field of that name, on either end.

    Attributes:
        name: As it is called on its instances: `tags`, or `articles` on the other end.
        near: The foreign key from the table in between to this side.
        far: The one to the other side.
        reverse: It is the end where the field isn't declared.
        mirrored: The relationship is one with the class itself, and goes both ways.
    """

    name: str
    near: ForeignKey[Any, Any]
    far: ForeignKey[Any, Any]
    reverse: bool
    mirrored: bool

    @property
    def model(self) -> type[Model]:
        """The class whose instances have the field."""
        found: type[Model] = self.near.related_model
        return found

    @property
    def through(self) -> type[Model]:
        """The table in between."""
        return self.near.model

    def linked(self, instance: Model, using: str, only: Iterable[Any] | None) -> list[Any]:
        """Who is in the field of an instance, as the far key has it; of those only, if given."""
        far, value = self.far.attname, self.near.get_foreign_related_value(instance)[0]
        rows = self.through._base_manager.using(using).filter(**{self.near.attname: value})
        rows = rows.filter(**{f"{far}__isnull": False})
        if only is None:
            return list(rows.values_list(far, flat=True))
        found: list[Any] = []
        for some in chunks(only):
            found += rows.filter(**{f"{far}__in": some}).values_list(far, flat=True)
        return found

    def opposite(self) -> Side:
        """The same relationship, seen from the other end; its name is of no matter."""
        return attrs.evolve(self, near=self.far, far=self.near, reverse=not self.reverse)


def watch_fields(model: type[Model], names: Iterable[str]) -> None:
    """Watch many-to-many fields of a class.

    Raises:
        ConfigurationError: One isn't there.
    """
    for name in names:
        side = sides(model).get(name)
        if side is None:
            raise ConfigurationError(_no_such_field(model, name))
        m2m_changed.connect(
            partial(on_change, side),
            sender=side.through,
            weak=False,
            dispatch_uid=f"{UID}.{side.model._meta.label}.{name}",
        )


def _no_such_field(model: type[Model], name: str) -> str:
    there = sorted(sides(model))
    has = f"it has {', '.join(there)}" if there else "it has none"
    return (
        f"an event of {model.__name__} is sent on changes of {name!r}, but {model.__name__} has no"
        f" many-to-many field of that name for which Django sends m2m_changed; {has}"
    )


def sides(model: type[Model]) -> Mapping[str, Side]:
    """The many-to-many fields of a class by name, declared on it or on the other end.

    Those that only look like one of Django's (tags of django-taggit, generic relations) are left
    out: their tables in between are of another form.
    """
    found: dict[str, Side] = {}
    for field in model._meta.many_to_many:
        if _is_djangos(field):
            found[field.name] = _side(field, field.name)
    for relation in model._meta.related_objects:
        name = relation.get_accessor_name()
        shown = isinstance(relation, ManyToManyRel) and not relation.hidden
        if name and shown and _is_djangos(relation.field):
            found[name] = _side(relation.field, name).opposite()
    return found


def _is_djangos(field: Any) -> bool:
    return isinstance(field, ManyToManyField) and hasattr(field, "m2m_field_name")


def _side(field: Any, name: str) -> Side:
    relation = field.remote_field
    return Side(
        name,
        near=relation.through._meta.get_field(field.m2m_field_name()),
        far=relation.through._meta.get_field(field.m2m_reverse_field_name()),
        reverse=False,
        mirrored=relation.symmetrical,
    )


def on_change(
    side: Side,
    *,
    instance: Model,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **_: Any,
) -> None:
    """A relationship changes by way of an instance on either side (a receiver of `m2m_changed`)."""
    if being_loaded(instance):
        return
    moment, what = action.split("_")
    near = reverse is side.reverse and isinstance(instance, side.model)
    far = not near or side.mirrored
    kinds = list(_kinds(side)) if far else []
    own = _triggers(type(instance), side.name) if near else frozenset()
    asked = own.union(*(_triggers(kind, side.name) for kind in kinds))
    # What there was before a change is kept with the instance until after it.
    kept, key = instance._state.__dict__, f"{LINKS}.{side.through._meta.label}.{side.name}"
    if moment == "pre":
        kept.pop(key, None)
        here = side if near else side.opposite()
        if what != "add" and "m2m_remove" in asked:
            kept[key] = here.linked(instance, using, pk_set)
        elif what == "clear" and "m2m_clear" in own:
            kept[key] = here.linked(instance, using, None)
        return
    others = _in_order((pk_set or ()) if what == "add" else kept.pop(key, ()))
    if not others:
        return
    if near and own:
        stored = as_row(instance, using) or instance
        tell_each(_near_signals(side, stored, what, others, own, using), using)
    if far:
        tell_each(_far_signals(side, instance, what, others, kinds, using), using)


Signals = Iterator[tuple[Signal, Model, dict[str, Any]]]


def _near_signals(
    side: Side, instance: Model, what: str, others: Sequence[Any], own: frozenset[str], using: str
) -> Signals:
    """Those of the instance whose own field has changed."""
    trigger, signal = _moved(what)
    if trigger in own:
        model, by = side.far.related_model, side.far.target_field.attname
        related = [item for some in instances_of(model, others, using, by) for item in some]
        yield signal, instance, {"field": side.name, "related": related}
    if what == "clear" and "m2m_clear" in own:
        yield signals.model_m2m_cleared, instance, {"field": side.name}


def _far_signals(
    side: Side,
    instance: Model,
    what: str,
    others: Sequence[Any],
    kinds: Sequence[type[Model]],
    using: str,
) -> Signals:
    """Those of the instances into whose field an instance has come, or from which it has gone."""
    trigger, signal = _moved(what)
    by = side.near.target_field.attname
    for some in chunks(others):
        found: dict[Any, Model] = {}
        for kind in kinds:
            if trigger in _triggers(kind, side.name):
                for instances in instances_of(kind, some, using, by):
                    found.update((getattr(item, by), item) for item in instances)
        for item in found.values():
            yield signal, item, {"field": side.name, "related": [instance]}


def _moved(what: str) -> tuple[str, Signal]:
    if what == "add":
        return "m2m_add", signals.model_m2m_added
    return "m2m_remove", signals.model_m2m_removed


def _triggers(model: type[Model], name: str) -> frozenset[str]:
    watch = watch_of(model)
    return frozenset() if watch is None else watch.m2m.get(name, frozenset())


def _kinds(side: Side) -> Iterator[type[Model]]:
    """The classes that have the field and events of their own for it, children after parents.

    A row says nothing of its child's, so that the other end reads each of these tables.
    """
    top = watch_of(side.model)
    for model in models_below(side.model):
        watch = watch_of(model)
        if model is not concrete(model) or watch is None or side.name not in watch.m2m:
            continue
        if model is side.model or top is None or watch.declared != top.declared:
            yield model


def _in_order(keys: Iterable[Any]) -> list[Any]:
    try:
        return sorted(keys)
    except TypeError:
        return list(keys)
