"""Listeners: connects to Django's signals and methods for each watched class."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakSet

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import class_prepared, post_delete, pre_delete, pre_save

from thorn_core import ConfigurationError, ModelAdapter, ModelWatcher, watch_models
from thorn_django.model_events import deletions, previous, saves
from thorn_django.model_events.fixtures import follow_fixtures
from thorn_django.model_events.many_to_many import UID, watch_fields
from thorn_django.model_events.querysets import WebhookQuerySet
from thorn_django.model_events.watches import (
    declarations,
    make_watch,
    models_below,
    refused,
    sends,
    watch_of,
)

_lock = threading.RLock()
_waiting: WeakSet[type[Model]] = WeakSet()
MARK = "_thorn_tells"


def start(adapter: ModelAdapter, watcher: ModelWatcher) -> None:
    """Watch all current and future Django models that send events.

    Models may inherit their events from a class outside Django. The app config of `thorn_django`
    calls this when all models are loaded.

    Args:
        adapter: The adapter that checks the declarations.
        watcher: Requests the adapter for decorated Django models, in place of an app.

    Raises:
        ConfigurationError: An event uses an unknown many-to-many field, or another attribute has
            replaced a model's `webhooks`.
    """
    _notice(adapter)
    follow_fixtures()
    watch_models(watcher)
    with _lock:
        waiting = list(_waiting)
        _waiting.clear()
    for model in [*waiting, *apps.get_models(include_auto_created=True)]:
        if sends(model):
            watch(model, adapter)


def watch(model: type[Model], adapter: ModelAdapter) -> None:
    """Watch a decorated class and its subclasses once all models are loaded.

    Args:
        model: The class.
        adapter: The adapter that checks the declarations.

    Raises:
        ConfigurationError: An event uses an unknown many-to-many field.
    """
    _notice(adapter)
    with _lock:
        if not apps.models_ready:
            _waiting.add(model)
            return
        for below in models_below(model):
            _listen(below, adapter)


def _notice(adapter: ModelAdapter) -> None:
    """Notice new classes from now on."""
    prepared = functools.partial(_prepared, adapter)
    class_prepared.connect(prepared, weak=False, dispatch_uid=UID)


def _prepared(adapter: ModelAdapter, sender: type[Model], **_: Any) -> None:
    if apps.models_ready and sends(sender):
        try:
            watch(sender, adapter)
        except ConfigurationError:
            refused.add(sender)
            raise


def _listen(model: type[Model], adapter: ModelAdapter) -> None:
    _check(model, adapter)
    watch = make_watch(model)
    watch_fields(model, watch.m2m)
    if watch.create or watch.change:
        _wrap(model, "_save_table", saves.told)
    if watch.remembered:
        _wrap(model, "from_db", _remembering_loaded)
        _wrap(model, "refresh_from_db", _remembering_refreshed)
        pre_save.connect(saves.before_save, sender=model, weak=False, dispatch_uid=UID)
    if watch.delete:
        pre_delete.connect(deletions.before_delete, sender=model, weak=False, dispatch_uid=UID)
        post_delete.connect(deletions.after_delete, sender=model, weak=False, dispatch_uid=UID)


def _check(model: type[Model], adapter: ModelAdapter) -> None:
    for webhooks in declarations(model):
        if webhooks.model is model:
            webhooks.check(adapter)
        elif not _has_rows(webhooks.model):
            # Only the models that inherit from it have its fields.
            webhooks.check(adapter, model)
        if webhooks.bulk and not any(
            isinstance(manager.get_queryset(), WebhookQuerySet) for manager in model._meta.managers
        ):
            raise ConfigurationError(
                f"{model.__name__}.webhooks sets bulk = True, but no manager of {model.__name__}"
                f" sends bulk events; add objects = WebhookQuerySet.as_manager()"
            )


def _has_rows(cls: type) -> bool:
    return issubclass(cls, Model) and not cls._meta.abstract


def _wrap(
    model: type[Model], name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Wrap a method of a class, unless the class inherits the wrapper."""
    method = getattr(model, name)
    function = getattr(method, "__func__", method)
    if not hasattr(function, MARK):
        wrapped = around(function)
        setattr(wrapped, MARK, True)
        setattr(model, name, classmethod(wrapped) if method is not function else wrapped)


def _remembering_loaded(from_db: Callable[..., Model]) -> Callable[..., Model]:
    @functools.wraps(from_db)
    def wrapped(
        cls: type[Model],
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        **options: Any,
    ) -> Model:
        instance = from_db(cls, db, field_names, values, **options)
        watch = watch_of(type(instance))
        if watch is not None and watch.remembered:
            loaded = dict(zip(field_names, values, strict=True))
            previous.remember_loaded(instance, watch, loaded)
        return instance

    return wrapped


def _remembering_refreshed(refresh: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(refresh)
    def wrapped(self: Model, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("fields") is not None:
            kwargs["fields"] = list(kwargs["fields"])
        refresh(self, *args, **kwargs)
        watch = watch_of(type(self))
        if watch is not None and watch.remembered:
            previous.remember_refreshed(self, watch, _fields(*args, **kwargs))

    return wrapped


def _fields(using: Any = None, fields: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Return the fields that `refresh_from_db` loads."""
    return fields
