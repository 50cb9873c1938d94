"""Values as stored: the row's values, whatever form the program assigned.

A program may assign `"2"` for 2, a Decimal with too many digits, or a naive datetime. The instance
keeps the assigned value, and its events show the stored value. Thorn knows the conversions of
Django's own fields. One query reads the values that only the database knows: an expression, a
rounded number, a third-party field.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import attrs
from django.conf import settings
from django.db import connections, models
from django.db.models import Field, Model
from django.db.models.fields.files import FieldFile
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute

# Types whose values can't change in place.
IMMUTABLE = frozenset(
    {str, int, float, bool, bytes, complex, Decimal, UUID, date, datetime, time, timedelta}
    | {type(None)}
)
UNKNOWN = object()

Read = Callable[[Any, str], Any]


@attrs.frozen(eq=False)
class Column:
    """A column of a model.

    Attributes:
        field: The column's field.
        read: Returns the stored value for a value and the alias of a database, or UNKNOWN if only
            the database knows.
        wrapped: Whether the attribute is a third-party descriptor. Its value may differ from the
            stored one, and depend on other columns: a Money of an amount and a currency.
    """

    field: Field[Any, Any]
    read: Read
    wrapped: bool

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.field.attname


_columns: WeakKeyDictionary[type[Model], Mapping[str, Column]] = WeakKeyDictionary()


def columns_of(model: type[Model]) -> Mapping[str, Column]:
    """Return the columns of a model by attribute, with those of its parents' tables."""
    found = _columns.get(model)
    if found is None:
        columns = [
            Column(field, reader(field), _is_wrapped(model, field))
            for field in model._meta.concrete_fields
        ]
        found = _columns[model] = {column.name: column for column in columns}
    return found


def _is_wrapped(model: type[Model], field: Field[Any, Any]) -> bool:
    return not _is_djangos(type(inspect.getattr_static(model, field.attname, None)))


def _is_djangos(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "django"


def is_plain(field: Field[Any, Any]) -> bool:
    """Return True if an instance's attribute returns exactly the value in its `__dict__`."""
    attribute = inspect.getattr_static(field.model, field.attname, None)
    return type(attribute) in (DeferredAttribute, ForeignKeyDeferredAttribute)


def as_stored(
    instance: Model,
    using: str,
    *,
    written: Collection[str] | None = None,
    stale: Collection[str] = (),
) -> Model:
    """Return an instance with its row's values: itself, or a copy if they differ.

    Args:
        instance: The instance after a save.
        using: Alias of the database.
        written: The written columns; None means all.
        stale: Columns to read from the database.
    """
    known, unknown = other_values(instance, using, written=written, stale=stale)
    if unknown:
        known |= read_row(instance, unknown, using) or {}
    return with_values(instance, known) if known else instance


def other_values(
    instance: Model,
    using: str,
    *,
    written: Collection[str] | None = None,
    stale: Collection[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Return stored values that differ from the instance's, and the unknown columns."""
    values, known, unknown = instance.__dict__, dict[str, Any](), [*stale]
    for name, column in columns_of(type(instance)).items():
        if name not in values or name in stale:
            continue
        stored = UNKNOWN
        if written is None or name in written:
            stored = _stored(column, values[name], using)
        if stored is UNKNOWN:
            unknown.append(name)
        elif stored is not values[name]:
            known[name] = stored
    return known, unknown


def stored_values(instance: Model, names: Iterable[str], using: str) -> dict[str, Any]:
    """Return the columns after a save, as far as they are known without a query."""
    values, columns = instance.__dict__, columns_of(type(instance))
    found = {name: _stored(columns[name], values[name], using) for name in names if name in values}
    return {name: value for name, value in found.items() if value is not UNKNOWN}


def _stored(column: Column, value: Any, using: str) -> Any:
    if value is None:
        return None
    return UNKNOWN if is_expression(value) else column.read(value, using)


def as_row(instance: Model, using: str) -> Model | None:
    """Return an instance with all values of its row from the database, or None without a row."""
    row = read_row(instance, list(columns_of(type(instance))), using)
    return None if row is None else with_values(instance, row)


def read_row(instance: Model, names: Collection[str], using: str) -> dict[str, Any] | None:
    """Return columns of an instance's row from the database, or None without a row."""
    rows = type(instance)._base_manager.using(using).filter(pk=instance.pk).order_by()
    return next(iter(rows.values(*names)), None)


def with_values(instance: Model, values: Mapping[str, Any]) -> Model:
    """Return a copy of an instance with other values, set in the way Django loads them."""
    model = type(instance)
    copied = model.__new__(model)
    copied.__dict__.update(instance.__dict__)
    state = copied._state = copy.copy(instance._state)
    state.fields_cache = dict(state.fields_cache)
    for name, column in columns_of(model).items():
        if name not in values:
            continue
        if column.wrapped:
            setattr(copied, name, values[name])
        elif column.field.is_relation and values[name] != instance.__dict__.get(name):
            setattr(copied, name, values[name])  # Drop the related object.
        else:
            copied.__dict__[name] = values[name]
    return copied


def is_expression(value: Any) -> bool:
    """Return True for `F("count") + 1` and other expressions."""
    return hasattr(value, "resolve_expression")


# -- the fields' conversions of values

# The methods of a field that convert values.
METHODS = (
    *("pre_save", "get_prep_value", "get_db_prep_value", "get_db_prep_save"),
    *("to_python", "from_db_value"),
)


def reader(field: Field[Any, Any]) -> Read:
    """Return a function that returns a column's stored value for an assigned one."""
    owners = (next((c for c in type(field).__mro__ if name in vars(c)), Field) for name in METHODS)
    if not all(map(_is_djangos, owners)):
        return _ask
    if isinstance(field, models.GeneratedField):
        return _itself
    if isinstance(field, models.ForeignKey):
        return _reference(reader(field.target_field))
    if field.get_internal_type() == "ArrayField":
        return _array(reader(field.base_field))  # type: ignore[attr-defined]
    for cls, make in _READERS.items():
        if isinstance(field, cls):
            return _careful(make(field))
    return _ask


def is_known(field: Field[Any, Any]) -> bool:
    """Return True if only Django's own code converts a field's values."""
    owners = (next((c for c in type(field).__mro__ if n in vars(c)), Field) for n in METHODS)
    return all(map(_is_djangos, owners))


def _ask(value: Any, using: str) -> Any:
    return UNKNOWN


def _careful(read: Read) -> Read:
    """Wrap a function: values that make it fail are read from the database."""

    def careful(value: Any, using: str) -> Any:
        try:
            return read(value, using)
        except Exception:
            return UNKNOWN

    return careful


def _reference(read: Read) -> Read:
    def referring(value: Any, using: str) -> Any:
        return UNKNOWN if value == "" else read(value, using)

    return referring


def _array(read: Read) -> Read:
    def reading(value: Any, using: str) -> Any:
        if not isinstance(value, list | tuple):
            return UNKNOWN
        items = [item if item is None else read(item, using) for item in value]
        if any(item is UNKNOWN for item in items):
            return UNKNOWN
        same = type(value) is list and all(a is b for a, b in zip(items, value, strict=True))
        return value if same else items

    return reading


def _as(cls: type) -> Callable[[Field[Any, Any]], Read]:
    """Return a reader for fields whose `get_prep_value` equals the stored value for this class."""

    def make(field: Field[Any, Any]) -> Read:
        def read(value: Any, using: str) -> Any:
            if type(value) is cls:
                return value
            made = field.to_python(field.get_prep_value(value))
            return made if type(made) is cls else UNKNOWN

        return read

    return make


def _text(field: Field[Any, Any]) -> Read:
    def read(value: Any, using: str) -> Any:
        if type(value) is str:
            return value
        made = field.get_prep_value(value)
        return str.__str__(made) if isinstance(made, str) else UNKNOWN

    return read


def _float(field: Field[Any, Any]) -> Read:
    def read(value: Any, using: str) -> Any:
        made = value if type(value) is float else field.get_prep_value(value)
        return made if type(made) is float and math.isfinite(made) else UNKNOWN

    return read


def _decimal(field: Field[Any, Any]) -> Read:
    places: int = field.decimal_places  # type: ignore[attr-defined]

    def read(value: Any, using: str) -> Any:
        made: Decimal = field.to_python(value)
        _, digits, exponent = made.as_tuple()
        # SQLite stores floating-point numbers.
        too_long = connections[using].vendor == "sqlite" and len(digits) > 15
        if not isinstance(exponent, int) or exponent < -places or too_long:
            return UNKNOWN
        return made if exponent == -places else made.quantize(Decimal(1).scaleb(-places))

    return read


def _datetime(field: Field[Any, Any]) -> Read:
    def read(value: Any, using: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Django has already warned about a naive datetime.
            made = field.get_prep_value(value)
        if not settings.USE_TZ:
            return made if made.tzinfo is None else UNKNOWN
        zone = connections[using].timezone
        return made if made.tzinfo is zone else made.astimezone(zone)

    return read


def _address(field: Field[Any, Any]) -> Read:
    def read(value: Any, using: str) -> Any:
        made = field.get_prep_value(value)
        return made if type(made) is str and ":" not in made else UNKNOWN

    return read


def _json(field: Field[Any, Any]) -> Read:
    encoder, decoder = field.encoder, field.decoder  # type: ignore[attr-defined]

    def read(value: Any, using: str) -> Any:
        if decoder is None and _is_json(value):
            return value
        return json.loads(json.dumps(value, cls=encoder), cls=decoder)

    return read


def _is_json(value: Any) -> bool:
    """Return True for values that JSON returns unchanged."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    if kind is list:
        return all(map(_is_json, value))
    return kind in (str, int, bool, type(None)) or (kind is float and math.isfinite(value))


def _binary(field: Field[Any, Any]) -> Read:
    def read(value: Any, using: str) -> Any:
        if type(value) is bytes:
            return value
        return bytes(value) if isinstance(value, bytearray | memoryview) else UNKNOWN

    return read


def _file(field: Field[Any, Any]) -> Read:
    # Its attribute wraps the name in a FieldFile.
    return lambda value, using: value if isinstance(value, str | FieldFile) else UNKNOWN


def _itself(value: Any, using: str) -> Any:
    return value


_READERS: Mapping[type, Callable[[Field[Any, Any]], Read]] = {
    models.FileField: _file,
    models.JSONField: _json,
    models.IntegerField: _as(int),
    models.BooleanField: _as(bool),
    models.FloatField: _float,
    models.DecimalField: _decimal,
    models.DateTimeField: _datetime,
    models.DateField: _as(date),
    models.TimeField: _as(time),
    models.DurationField: _as(timedelta),
    models.UUIDField: _as(UUID),
    models.BinaryField: _binary,
    models.GenericIPAddressField: _address,
    models.CharField: _text,
    models.TextField: _text,
    models.FilePathField: _text,
}
