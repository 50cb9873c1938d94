"""INSERTs of many objects: determines the rows they create and change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Model, Q, UniqueConstraint

from thorn_django.model_events.rows import tell_changed, tell_created
from thorn_django.model_events.telling import chunks, instances_of
from thorn_django.model_events.watches import Watch, attributes

logger = logging.getLogger(__name__)

# The number of rows to look up at once by several columns.
GROUP = 100


class Insertion:
    """A `bulk_create` in progress; looks up existing rows first.

    If the database doesn't report a generated primary key of a row, or may have skipped the row,
    the row is looked up by its unique fields.

    Args:
        model: The class.
        watch: The watch of the class.
        objs: The objects to insert.
        using: Alias of the database.
        update_fields: The fields to update in existing rows, or None.
        ignore: Whether existing rows stay unchanged.
    """

    def __init__(
        self,
        model: type[Model],
        watch: Watch,
        objs: Sequence[Model],
        using: str,
        *,
        update_fields: Sequence[str] | None,
        ignore: bool,
    ) -> None:
        self._model = model
        self._watch = watch
        self._objs = objs
        self._using = using
        self._conflicts = ignore or update_fields is not None
        self._names = {*attributes(model, update_fields or ())}
        if self._names:
            self._names |= {*watch.remembered, *watch.generated}
        self._names.discard(model._meta.pk.attname)
        self._before = self._there() if self._conflicts else {}

    def tell(self) -> None:
        """Send signals for created and changed rows after the INSERT."""
        if self._watch.create:
            self._tell_created()
        if self._watch.change and self._names:
            tell_changed(self._model, self._watch, self._before, self._using)

    def _tell_created(self) -> None:
        made: Iterable[Model]
        key = unique_keys(self._model)[0]
        if not self._conflicts and all(_values(obj, key) is not None for obj in self._objs):
            made = self._objs
        else:
            found = self._there()
            keys = [key for key in found if key not in self._before]
            made = (item for some in instances_of(self._model, keys, self._using) for item in some)
            self._warn_of_unknown()
        tell_created(self._model, self._watch, made, self._using)

    def _there(self) -> dict[Any, dict[str, Any]]:
        """Return the existing rows with a unique key of the objects, by primary key."""
        found: dict[Any, dict[str, Any]] = {}
        names = sorted(self._names)
        rows = self._model._base_manager.using(self._using).select_for_update().order_by()
        for unique in unique_keys(self._model):
            values = [held for obj in self._objs if (held := _values(obj, unique)) is not None]
            for condition in _conditions(unique, values):
                for key, *columns in rows.filter(condition).values_list("pk", *names):
                    found[key] = dict(zip(names, columns, strict=True))
        return found

    def _warn_of_unknown(self) -> None:
        keys = list(unique_keys(self._model))
        unknown = sum(all(_values(obj, key) is None for key in keys) for obj in self._objs)
        if unknown:
            logger.warning(
                "no events for %d rows of %s: the database doesn't report which rows bulk_create"
                " inserted; set their primary keys or unique fields, or save each one",
                unknown,
                self._model.__name__,
            )


def unique_keys(model: type[Model]) -> list[list[str]]:
    """Return the attributes of each unique key of a class, the primary key included."""
    meta = model._meta
    found = [[field.name for field in getattr(meta, "pk_fields", [meta.pk])]]
    found += [[f.name] for f in meta.concrete_fields if f.unique and not f.primary_key]
    found += [list(names) for names in meta.unique_together]
    found += [
        list(constraint.fields)
        for constraint in meta.constraints
        if isinstance(constraint, UniqueConstraint)
        and constraint.fields
        and constraint.condition is None
    ]
    return [attributes(model, names) for names in found]


def _values(obj: Model, unique: Sequence[str]) -> tuple[Any, ...] | None:
    """Return an object's values of a unique key if it has all: NULL never equals NULL."""
    values = tuple(obj.__dict__.get(name) for name in unique)
    known = (v is not None and not hasattr(v, "resolve_expression") for v in values)
    return values if all(known) else None


def _conditions(unique: Sequence[str], values: Sequence[tuple[Any, ...]]) -> Iterator[Q]:
    if len(unique) == 1:
        for some in chunks(value for (value,) in values):
            yield Q(**{f"{unique[0]}__in": some})
    else:
        for group in chunks(values, GROUP):
            yield reduce(or_, (Q(**dict(zip(unique, value, strict=True))) for value in group))
