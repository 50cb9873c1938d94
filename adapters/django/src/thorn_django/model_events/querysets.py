"""Querysets whose statements send events too, for those who ask for it.

Django tells of no `update()`, `bulk_create()` or `bulk_update()`: they change rows without loading
them. `WebhookQuerySet` makes them send events, at a price, and all in one transaction:

- `update()` reads the primary keys and the written columns of all rows that match, and keeps them
  in memory; afterwards it loads the rows, 500 at a time, and sends of those that have changed.
  A row that comes to match in between, from another transaction, is changed without an event.
- `bulk_create()` sends of the objects given; with `ignore_conflicts` or `update_conflicts` it looks
  up, before and after, which rows there are under their primary keys and unique fields.
- `bulk_update()` is as `update()`.
- `delete()` sends what each deletion sends anyway, in fewer INSERTs.

Messages are kept by one INSERT for each 500. `create()`, `get_or_create()` and `update_or_create()`
save instances, and those send events with any manager. So do the asynchronous methods what the
synchronous ones do. Related managers (`author.articles.add(article)`) and `on_delete=SET_NULL` use
a model's base manager: `class Meta: base_manager_name = "objects"` makes those updates send too.
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
        """As `QuerySet.update`; sends of each row that it changes."""
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
        """As `QuerySet.bulk_create`; sends of each row that it makes or, on conflict, changes."""
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
        """As `QuerySet.bulk_update`; sends of each row that it changes."""
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
        """As `QuerySet.delete`; keeps the messages of all its rows together."""
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
    """A Manager of `WebhookQuerySet`s, to inherit from: `WebhookQuerySet.as_manager()` is one too.

    Example:
        >>> class PublishedManager(WebhookManager):
        ...     def get_queryset(self):
        ...         return super().get_queryset().filter(state="PUBLISHED")
    """
