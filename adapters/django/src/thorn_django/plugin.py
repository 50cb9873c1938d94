"""What Thorn finds by the entry point: the store, units of work, the model adapter, URLs.

It is loaded wherever the package is installed, also by programs that don't use Django.
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
    """The store in a database of Django's: `django://`, `django://alias`."""
    return {"django": _store}


def _store(source: Any, settings: Settings) -> DjangoStore:
    from thorn_django.app import store_of

    return store_of(source)


@hookimpl
def thorn_unit_of_work(handle: Any) -> UnitOfWork | None:
    """The unit of work of a database alias, or of Django's connection to one."""
    if "django.db" not in sys.modules:
        return None
    from thorn_django.unit_of_work import unit_of_work

    return unit_of_work(handle)


@hookimpl
def thorn_model_adapter(model: type) -> ModelAdapter | None:
    """The adapter for a Django model."""
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
    """The path of a view, if there is a project."""
    if "django.urls" not in sys.modules:
        return None
    from thorn_django.reversing import reverse_view

    return reverse_view(view, args, kwargs)


@hookimpl
def thorn_base_url() -> str | None:
    """The URL of the current site, if the sites framework is installed."""
    if "django.apps" not in sys.modules:
        return None
    from thorn_django.reversing import base_url

    return base_url()


def model_declared(model: type) -> None:
    """Refuse a decorated Django model whose events nobody would send.

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
