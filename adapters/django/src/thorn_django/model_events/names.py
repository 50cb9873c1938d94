"""Names: the attributes of a model that events may use, and their values' types."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Field, FileField, ForeignObjectRel, JSONField, Model
from django.utils import timezone

from thorn_core.models import ModelNames, class_names, looks_secret
from thorn_django.model_events.many_to_many import sides
from thorn_django.model_events.stored import is_known, is_plain

# Django's own attributes of models that aren't fields.
NO_NAMES = ("objects", "DoesNotExist", "MultipleObjectsReturned", "NotUpdated")
# Secret fields of third-party libraries.
SECRET_FIELDS = ("Encrypted", "Password", "Hashed")


def names_of(model: type) -> ModelNames:
    """Return the names of a model's fields, relations and properties, or of another class.

    Fields from other models may be missing until all models are loaded.
    """
    plain = class_names(model)
    if not issubclass(model, Model):
        return plain
    leads_to = {name: cls for name, cls in plain.leads_to.items() if name not in NO_NAMES}
    leads_to |= dict(_leads_to(model))
    if model._meta.abstract:
        # Subclasses have more.
        return ModelNames(leads_to=leads_to, secret=_secret(model), open=True)
    return ModelNames(
        leads_to=leads_to,
        many_to_many=frozenset(sides(model)),
        secret=_secret(model),
        # Its `__getattr__` may provide more names.
        open=not plain.leads_to,
    )


def _leads_to(model: type[Model]) -> Iterator[tuple[str, type | None]]:
    yield "pk", None
    for field in model._meta.get_fields(include_hidden=True):
        related: Any = field.related_model if field.is_relation else None
        if isinstance(field, ForeignObjectRel):
            name = field.get_accessor_name()
            if name and not field.hidden:
                yield name, related if field.one_to_one else None
        elif isinstance(field, Field) and field.is_relation and field.concrete:
            single = field.many_to_one or field.one_to_one
            yield field.name, related if single and isinstance(related, type) else None
            yield field.attname, None
        elif isinstance(field, Field) and field.concrete:
            yield field.name, _class_of(field)
            yield field.attname, _class_of(field)
        else:  # A generic relation, and third-party fields.
            yield field.name, None


def _class_of(field: Field[Any, Any]) -> type | None:
    """Return the class of a column's values; None if unknown, so that any name may follow."""
    if isinstance(field, FileField):
        return field.attr_class
    if not (is_known(field) and is_plain(field)):
        return None
    for cls, made in _CLASSES.items():
        if isinstance(field, cls):
            return made
    return None


_CLASSES: dict[type, type] = {
    models.IntegerField: int,
    models.FloatField: float,
    models.DecimalField: Decimal,
    models.BooleanField: bool,
    models.CharField: str,
    models.TextField: str,
    models.UUIDField: UUID,
}


def _secret(model: type[Model]) -> frozenset[str]:
    found = (field for field in model._meta.fields if _is_secret(field))
    return frozenset(name for field in found for name in (field.name, field.attname))


def _is_secret(field: Field[Any, Any]) -> bool:
    classes = (cls.__name__ for cls in type(field).__mro__)
    names = (field.name, field.column or "")
    return any(map(looks_secret, names)) or any(cls.startswith(SECRET_FIELDS) for cls in classes)


# -- values for filters


def to_python(model: type, name: str, value: Any) -> Any:
    """Convert a value to a column's type without rounding.

    Raises:
        ValueError: The column can't hold it.
    """
    field = _field(model, name)
    if field is None:
        return value
    if field.is_relation and name == field.name and name != field.attname:
        related = field.related_model
        if isinstance(related, type) and not isinstance(value, related):
            raise ValueError(
                f"it refers to a {related.__name__}; compare {field.attname}, or a field of the"
                f" related model"
            )
        return value
    while field.is_relation:
        field = field.target_field
    if isinstance(field, models.GeneratedField):
        field = field.output_field
    return value if isinstance(field, JSONField) else _converted(field, value)


def _field(model: type, name: str) -> Any:
    if not issubclass(model, Model):
        return None
    if name == "pk":
        name = model._meta.pk.name if model._meta.pk is not None else name
    for field in model._meta.concrete_fields:
        # Leave values of third-party fields to their own code.
        if name in (field.name, field.attname):
            return field if field.is_relation or is_known(field) else None
    return None


def _converted(field: Field[Any, Any], value: Any) -> Any:
    if isinstance(field, models.IntegerField) and isinstance(value, float | Decimal):
        return value  # Don't convert 2.5 to 2.
    try:
        made = field.to_python(value)
    except ValidationError as error:
        raise ValueError("; ".join(error.messages)) from error
    if isinstance(made, datetime) and settings.USE_TZ and timezone.is_naive(made):
        return timezone.make_aware(made, timezone.get_default_timezone())
    return made
