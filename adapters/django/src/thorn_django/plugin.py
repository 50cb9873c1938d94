"""The entry point's plugin: the store, units of work, the model adapter, URLs.

Thorn loads it wherever the package is installed, even in programs without Django.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thorn_core import ConfigurationError, ModelAdapter, Settings, UnitOfWork, hookimpl

if TYPE_CHECKING:
    from thorn_django.store import DjangoStore


@hookimpl
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], DjangoStore]]:
    """Return the store in a Django database: `django://`, `django://alias`."""
    return {"django": _store}


def _store(source: Any, settings: Settings) -> DjangoStore:
    from thorn_django.app import store_of

    return store_of(source)


@hookimpl
def thorn_unit_of_work(handle: Any) -> UnitOfWork | None:
    """Return the unit of work of a database alias or of its Django connection."""
    if "django.db" not in sys.modules:
        return None
    from thorn_django.unit_of_work import unit_of_work

    return unit_of_work(handle)


@hookimpl
def thorn_model_adapter(model: type) -> ModelAdapter | None:
    """Return the adapter for a Django model."""
    if "django.db.models.base" not in sys.modules:
        return None
    from django.db.models.base import ModelBase

    if not isinstance(model, ModelBase):
        return None
    from thorn_django.model_events.adapter import model_adapter

    return model_adapter(model)


@hookimpl
def thorn_import_events() -> None:
    """Import `events` and `webhooks` of every installed app, if there is a project."""
    if "django.apps" not in sys.modules:
        return
    from thorn_django.discovery import import_events

    import_events()


@hookimpl
def thorn_reverse(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the path of a view, if there is a project."""
    if "django.urls" not in sys.modules:
        return None
    from thorn_django.reversing import reverse_view

    return reverse_view(view, args, kwargs)


@hookimpl
def thorn_base_url() -> str | None:
    """Return the URL of the current site, if the sites framework is installed."""
    if "django.apps" not in sys.modules:
        return None
    from thorn_django.reversing import base_url

    return base_url()


def model_declared(model: type) -> None:
    """Refuse a decorated Django model if `thorn_django` isn't installed to send its events.

    Raises:
        ConfigurationError: INSTALLED_APPS lacks `thorn_django`.
    """
    from django.apps import apps
    from django.db.models.base import ModelBase

    if isinstance(model, ModelBase) and apps.apps_ready and not apps.is_installed("thorn_django"):
        raise ConfigurationError(
            f"{model.__name__} is decorated with webhook_model, but 'thorn_django' is not in"
            f" INSTALLED_APPS: its events wouldn't be sent. Add it, and run: manage.py migrate"
        )
