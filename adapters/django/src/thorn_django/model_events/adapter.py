"""The model adapter: which classes are Django's, and the values of their instances."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
from django.db.models import Field, Model
from django.db.models.fields.files import FieldFile
from django.utils.functional import Promise

from thorn_core import ModelWebhooks
from thorn_core.models import ModelNames, class_names
from thorn_django.model_events.listeners import watch

PLAIN = (bool, int, float, str, Decimal, date, time, timedelta, UUID, list, tuple, dict, Promise)


class DjangoModelAdapter:
    """Sends the model signals for Django's models.

    Example:
        >>> from django.contrib.contenttypes.models import ContentType
        >>> adapter = model_adapter(ContentType)
        >>> adapter.values(ContentType(id=1, app_label="magazine", model="article"), ["model"])
        {'model': 'article'}
        >>> model_adapter(dict) is None
        True
    """

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the signals that a model's events ask for, for it and for what inherits from it.

        Raises:
            ConfigurationError: An event names a many-to-many field that isn't there, or `bulk` is
                asked for without the manager that it needs. If Django's models aren't all loaded
                yet, that is raised once they are.
        """
        watch(webhooks.model)

    def names(self, model: type) -> ModelNames:
        """What the class tells."""
        return attrs.evolve(class_names(model), open=True)

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """The value itself."""
        return value

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The values of columns, by attribute name; those deferred are read, in one query.

        Files are given by their names, bytes in base64, and what isn't a number, text, time, list
        or mapping as Django's serializers write it.
        """
        model, there = type(instance), instance.__dict__
        columns = list(model._meta.concrete_fields)
        missing = [field.attname for field in columns if field.attname not in there]
        if missing and instance.pk is not None:
            rows = model._base_manager.using(instance._state.db).filter(pk=instance.pk)
            for row in rows.values(*missing):
                there = {**there, **row}
        return {
            field.attname: _plain(field, there[field.attname])
            for field in columns
            if field.attname in there and field.attname in fields
        }


def _plain(field: Field[Any, Any], value: Any) -> Any:
    if isinstance(value, FieldFile):
        return value.name or ""
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    holder = field.model.__new__(field.model)
    holder.__dict__[field.attname] = value
    return field.value_to_string(holder)


ADAPTER = DjangoModelAdapter()


def model_adapter(model: type) -> DjangoModelAdapter | None:
    """The adapter, if a class is one of Django's models; else None."""
    return ADAPTER if isinstance(model, type) and issubclass(model, Model) else None
