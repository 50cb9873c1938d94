"""The model adapter: recognises Django's models, and reads values of their instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Manager, Model
from django.db.models.fields.files import FieldFile

from thorn_core import ModelWebhooks
from thorn_core.models import ModelNames, follow, split_path
from thorn_django.model_events import listeners
from thorn_django.model_events.names import names_of, to_python
from thorn_django.model_events.stored import is_known, other_values, with_values
from thorn_django.model_events.watches import attributes, column

# Types with a JSON form, from any field.
PLAIN = (bool, int, float, str, bytes, Decimal, date, time, timedelta, UUID, list, tuple, dict)


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
        """Send the signals that a model's events need, for the model and its subclasses.

        Raises:
            ConfigurationError: An event uses an unknown many-to-many field, or `bulk` is set
                without a suitable manager. Before all models are loaded, the error comes once they
                are.
        """
        listeners.watch(webhooks.model, self)

    def names(self, model: type) -> ModelNames:
        """Return the fields, relations and properties of a model."""
        return names_of(model)

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """Return the stored values of some attributes; load missing columns in one query.

        A relation's value is a primary key or a list of keys, a file's value its name. Values
        without a JSON form have the form of Django's serializers.
        """
        using = instance._state.db
        if using is not None:
            asked = attributes(type(instance), (split_path(path)[0] for path in fields))
            missing = [name for name in asked if name not in instance.__dict__]
            if missing and instance.pk is not None:
                instance.refresh_from_db(using=using, fields=missing)
            others, _ = other_values(instance, using)
            instance = with_values(instance, others) if others else instance
        return {path: _value(instance, path) for path in fields}

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """Convert a value to a column's type: `"2"` to 2; leave third-party fields unchanged.

        Raises:
            ValueError: The column can't hold it.
        """
        return to_python(model, field, value)


def _value(instance: Any, path: str) -> Any:
    *way, last = split_path(path)
    holder = follow(instance, ".".join(way)) if way else instance
    if holder is None:
        return None
    value = follow(holder, last)
    if isinstance(value, Manager):
        return list(value.using(holder._state.db).values_list("pk", flat=True))
    if isinstance(value, Model):
        return value.pk
    if isinstance(value, FieldFile):
        return value.name or ""
    field = column(type(holder), last) if isinstance(holder, Model) else None
    if field is None or is_known(field) or value is None or isinstance(value, PLAIN):
        return value
    return field.value_to_string(holder)


ADAPTER = DjangoModelAdapter()


def model_adapter(model: type) -> DjangoModelAdapter | None:
    """Return the adapter for a Django model, else None."""
    return ADAPTER if isinstance(model, type) and issubclass(model, Model) else None


class _Watcher:
    """Requests the adapter for decorated Django models, in place of an app."""

    def model_adapter(self, model: type) -> DjangoModelAdapter | None:
        return model_adapter(model)


_WATCHER = _Watcher()


def start() -> None:
    """Watch all current and future Django models that send events.

    Raises:
        ConfigurationError: An event uses an unknown many-to-many field, or another attribute has
            replaced a model's `webhooks`.
    """
    listeners.start(ADAPTER, _WATCHER)
