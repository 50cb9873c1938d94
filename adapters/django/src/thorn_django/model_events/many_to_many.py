"""Many-to-many fields: additions and removals from both sides.

Thorn's triggers concern the instance with the field. So `tag.articles.add(article)` adds to
`article.tags`, and sends an event of the article, as `article.tags.add(tag)` does. Django's
`m2m_changed` becomes:

- added: new members.
- removed: former members, after `remove()`, `set()` or `clear()`. If an event needs them, they are
  read from the through table first.
- cleared: `clear()` or `set(clear=True)` has emptied a field with members. `tag.articles.clear()`
  clears no article's tags: it removes one tag from each.

Django sends no signal for other writes to the through table (an explicit `through` model's own
`save()`, a cascade, `bulk_create`): let that model send events.
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
    """One side of a many-to-many relationship: its field on either end.

    Attributes:
        name: The field's name on its instances: `tags`, or `articles` on the other end.
        near: The foreign key from the through table to this side.
        far: The foreign key to the other side.
        reverse: True for the end without the declaration.
        mirrored: Whether the class is related to itself, symmetrically.
    """

    name: str
    near: ForeignKey[Any, Any]
    far: ForeignKey[Any, Any]
    reverse: bool
    mirrored: bool

    @property
    def model(self) -> type[Model]:
        """The class with the field."""
        found: type[Model] = self.near.related_model
        return found

    @property
    def through(self) -> type[Model]:
        """The through table."""
        return self.near.model

    def linked(self, instance: Model, using: str, only: Iterable[Any] | None) -> list[Any]:
        """Return the far keys of an instance's members, or of those among the given ones."""
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
        """Return the same relationship from the other end; its name doesn't matter."""
        return attrs.evolve(self, near=self.far, far=self.near, reverse=not self.reverse)


def watch_fields(model: type[Model], names: Iterable[str]) -> None:
    """Watch many-to-many fields of a class.

    Raises:
        ConfigurationError: A field is unknown.
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
    """Return the many-to-many fields of a class by name, declared on either end.

    Fields that only look like Django's (tags of django-taggit, generic relations) are left out:
    their through tables differ.
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
    """Send signals for a change of a relationship (a receiver of `m2m_changed`)."""
    if being_loaded(instance):
        return
    moment, what = action.split("_")
    near = reverse is side.reverse and isinstance(instance, side.model)
    far = not near or side.mirrored
    kinds = list(_kinds(side)) if far else []
    own = _triggers(type(instance), side.name) if near else frozenset()
    asked = own.union(*(_triggers(kind, side.name) for kind in kinds))
    # The instance stores the former members until after the change.
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
    """Return the signals of the instance whose own field has changed."""
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
    """Return the signals of instances whose field has gained or lost this instance."""
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
    """Return the classes with the field and their own events for it, children after parents.

    A parent's row doesn't refer to its child's row, so the other end reads each of these tables.
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
