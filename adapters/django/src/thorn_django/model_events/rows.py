"""Rows changed without instances: reads them before and after, and sends signals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db.models import Model, QuerySet

from thorn_core import signals
from thorn_django.model_events import previous
from thorn_django.model_events.stored import other_values, with_values
from thorn_django.model_events.telling import chunks, instances_of, tell_each
from thorn_django.model_events.watches import Watch

# The former values of some columns by primary key.
Before = Mapping[Any, Mapping[str, Any]]


def matched(queryset: QuerySet[Any], names: Sequence[str]) -> Before:
    """Read and lock the rows that a queryset's UPDATE will match.

    Args:
        queryset: The queryset with its filters.
        names: The columns to read.
    """
    rows = queryset.order_by()
    if not _is_simple(queryset):
        # Locks are possible only if each result row comes from one row of the table.
        model = queryset.model
        rows = model._base_manager.using(queryset.db).filter(pk__in=rows.values("pk"))
    read = rows.select_for_update().values_list("pk", *names)
    return {key: dict(zip(names, values, strict=True)) for key, *values in read}


def _is_simple(queryset: QuerySet[Any]) -> bool:
    query = queryset.query
    tables = sum(1 for count in query.alias_refcount.values() if count)
    return not (tables > 1 or query.distinct or query.group_by or query.annotations)


def tell_created(model: type[Model], watch: Watch, instances: Iterable[Model], using: str) -> None:
    """Send signals for instances created by one INSERT."""

    def told() -> Iterator[tuple[Any, Model, dict[str, Any]]]:
        for some in chunks(instances):
            for instance, stored in _each_as_stored(model, some, using):
                if watch.remembered:
                    values = previous.snapshot(stored, watch.remembered)
                    previous.remember(instance, values, using)
                yield signals.model_created, stored, {}

    tell_each(told(), using)


def _each_as_stored(
    model: type[Model], made: Sequence[Model], using: str
) -> Iterator[tuple[Model, Model]]:
    """Yield inserted instances, each with one that has the values of its row."""
    others = [other_values(item, using) for item in made]
    if not any(unknown for _, unknown in others):
        for item, (known, _) in zip(made, others, strict=True):
            yield item, with_values(item, known) if known else item
        return
    keys = [model._meta.pk.to_python(item.pk) for item in made]
    found = {row.pk: row for rows in instances_of(model, keys, using) for row in rows}
    yield from ((item, found[k]) for item, k in zip(made, keys, strict=True) if k in found)


def tell_changed(model: type[Model], watch: Watch, before: Before, using: str) -> None:
    """Send signals for rows whose values have changed.

    Args:
        model: The class whose events are sent.
        watch: The watch of the class.
        before: The rows' former values of possibly changed columns.
        using: Alias of the database.
    """

    def told() -> Iterator[tuple[Any, Model, dict[str, Any]]]:
        for instances in instances_of(model, before, using):
            for instance in instances:
                held = before[instance.pk]
                values = previous.former_values(instance, watch, held, held)
                if values:
                    yield signals.model_changed, instance, {"previous": values}

    tell_each(told(), using)
