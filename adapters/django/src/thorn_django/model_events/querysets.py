"""Querysets whose bulk methods also send events.

Django sends no signals for `update()`, `bulk_create()` and `bulk_update()`, which change rows
without loading them. `WebhookQuerySet` makes them send events, each in one transaction, at a cost:

- `update()` reads the primary keys and the written columns of all matching rows into memory. After
  the UPDATE it loads the rows, 500 at a time, and sends events for the changed ones. A row that
  another transaction makes match in between changes without an event.
- `bulk_create()` sends events for the given objects. With `ignore_conflicts` or `update_conflicts`
  it looks up existing rows by primary key and unique fields, before and after.
- `bulk_update()` works like `update()`.
- `delete()` sends the same events as any deletion, with fewer INSERTs.

One INSERT stores up to 500 messages. `create()`, `get_or_create()` and `update_or_create()` save
instances, which send events with any manager. Asynchronous methods work like the synchronous ones.
Related managers (`author.articles.add(article)`) and `on_delete=SET_NULL` use a model's base
manager: `class Meta: base_manager_name = "objects"` makes those updates send events, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from django.db.models import Manager, Model, QuerySet

from thorn_core import HeldEvents
from thorn_django.model_events import previous
from thorn_django.model_events.inserts import Insertion
from thorn_django.model_events.rows import matched, tell_changed
from thorn_django.model_events.telling import together
from thorn_django.model_events.watches import attributes, watch_of

M = TypeVar("M", bound=Model)


class WebhookQuerySet(QuerySet[M]):
    """A QuerySet whose `update()`, `bulk_create()` and `bulk_update()` send events.

    Example:
        >>> from django.db import models
        >>> class Page(models.Model):
        ...     objects = WebhookQuerySet.as_manager()
        ...     class Meta:
        ...         app_label = "library"
        >>> isinstance(Page.objects.all(), WebhookQuerySet)
        True
    """

    def update(self, **kwargs: Any) -> int:
        """Call `QuerySet.update`, and send events for changed rows."""
        model, query = self.model, self.query
        watch = watch_of(model)
        if watch is None or not watch.change or query.combinator or query.is_sliced:
            return super().update(**kwargs)
        self._for_write = True
        using = self.db
        names = {*attributes(model, kwargs), *watch.remembered, *watch.generated}
        names.discard(model._meta.pk.attname)
        with together(using):
            before = matched(self, sorted(names))
            count = super().update(**kwargs)
            tell_changed(model, watch, before, using)
        return count

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[M],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        update_conflicts: bool = False,  # noqa: FBT001, FBT002
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[M]:
        """Call `QuerySet.bulk_create`, and send events for created and changed rows."""
        objs = list(objs)

        def insert() -> list[M]:
            return super(WebhookQuerySet, self).bulk_create(
                objs,
                batch_size=batch_size,
                ignore_conflicts=ignore_conflicts,
                update_conflicts=update_conflicts,
                update_fields=update_fields,
                unique_fields=unique_fields,
            )

        watch = watch_of(self.model)
        if watch is None or not objs or not (watch.create or (watch.change and update_conflicts)):
            return insert()
        self._for_write = True
        with together(self.db):
            insertion = Insertion(
                self.model,
                watch,
                objs,
                self.db,
                update_fields=tuple(update_fields or ()) if update_conflicts else None,
                ignore=ignore_conflicts,
            )
            made = insert()
            insertion.tell()
        return made

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(
        self, objs: Iterable[M], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Call `QuerySet.bulk_update`, and send events for changed rows."""
        objs, fields = tuple(objs), tuple(fields)
        watch = watch_of(self.model)
        if watch is None or not watch.remembered:
            return super().bulk_update(objs, fields, batch_size)
        self._for_write = True
        using = self.db
        with together(using):
            count = super().bulk_update(objs, fields, batch_size)
            names = {*attributes(self.model, fields)} & {*watch.remembered}
            for instance in objs:
                known = previous.known(instance, using)
                if known:
                    now = previous.snapshot_as_stored(instance, names, using)
                    previous.remember(instance, previous.replaced(known, names, now), using)
        return count

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Call `QuerySet.delete`, and store the messages of all rows together."""
        if watch_of(self.model) is None:
            return super().delete()
        self._for_write = True
        held = HeldEvents()
        with together(self.db):
            with held:
                deleted = super().delete()
            held.release()
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class WebhookManager(Manager.from_queryset(WebhookQuerySet)[M]):  # type: ignore[misc]
    """A Manager of `WebhookQuerySet`s to inherit from, like `WebhookQuerySet.as_manager()`.

    Example:
        >>> class PublishedManager(WebhookManager):
        ...     def get_queryset(self):
        ...         return super().get_queryset().filter(state="PUBLISHED")
    """
