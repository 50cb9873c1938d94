"""Stored values: predicts the value that a column returns for a written value.

Columns return most values unchanged, and some in a form that their type defines (`Decimal("1.5")`
as `Decimal("1.50")`). If only the database knows the form (`"2"` for an integer, a rounded decimal,
a range, a time without its zone), the result is `UNKNOWN`, and the column is read back.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Dialect, PickleType, TypeDecorator
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

UNKNOWN: Final = object()
Converter = Callable[[Any], Any]
EXACT_FLOATS = ("sqlite", "postgresql")
# They keep every digit of a NUMERIC; SQLite has floats, which keep 15.
EXACT_DECIMALS = ("postgresql", "mysql", "mariadb")
FLOAT_DIGITS = 15
MYSQL = ("mysql", "mariadb")


def converter(column_type: TypeEngine[Any], dialect: Dialect) -> Converter:
    """Return a function that predicts a column's value for a written one, or returns `UNKNOWN`.

    Example:
        >>> from sqlalchemy import Integer, Numeric
        >>> from sqlalchemy.dialects import sqlite
        >>> converter(Numeric(10, 2), sqlite.dialect())(Decimal("1.5"))
        Decimal('1.50')
        >>> converter(Integer(), sqlite.dialect())("2") is UNKNOWN
        True
    """
    convert = _converter(column_type, dialect)
    if isinstance(column_type, TypeDecorator):
        return convert  # It may convert None.
    return lambda value: None if value is None else convert(value)


def _converter(column_type: TypeEngine[Any], dialect: Dialect) -> Converter:
    impl: Any = column_type.dialect_impl(dialect)
    if isinstance(column_type, PickleType):
        return _same
    if isinstance(impl, TypeDecorator) and not isinstance(column_type, sqltypes.Interval):
        return _decorated(impl, dialect)
    if not type(column_type).__module__.startswith("sqlalchemy."):
        return _unknown  # A program's type may do anything.
    if isinstance(column_type, sqltypes.CHAR | sqltypes.NCHAR) and dialect.name != "sqlite":
        return _unknown  # Padded with blanks.
    for kind, make in _MAKERS:
        if isinstance(impl, kind):
            return make(impl, dialect)
    return _unknown


def _same(value: Any) -> Any:
    return value


def _unknown(value: Any) -> Any:
    return UNKNOWN


def _of_type(*classes: type) -> Callable[[Any, Dialect], Converter]:
    def make(impl: Any, dialect: Dialect) -> Converter:
        return lambda value: value if type(value) in classes else UNKNOWN

    return make


def _decorated(impl: Any, dialect: Dialect) -> Converter:
    """Return a program's type applied to a value on its way to the database and back."""
    if _overrides(type(impl), "bind_processor", "result_processor") or _overrides(
        type(impl), "bind_expression", "column_expression"
    ):
        return _unknown
    inner = converter(impl.impl_instance, dialect)
    binds = _overrides(type(impl), "process_bind_param")
    results = _overrides(type(impl), "process_result_value")

    def convert(value: Any) -> Any:
        try:
            bound = impl.process_bind_param(value, dialect) if binds else value
            # A salted hash, for example, differs each time.
            if binds and bound != impl.process_bind_param(value, dialect):
                return UNKNOWN
            found = inner(bound)
            if not results or found is UNKNOWN:
                return found
            return impl.process_result_value(found, dialect)
        except Exception:
            return UNKNOWN

    return convert


def _overrides(cls: type, *names: str) -> bool:
    return any(
        name in vars(base)
        for base in cls.__mro__
        if not base.__module__.startswith("sqlalchemy.")
        for name in names
    )


def _text(impl: Any, dialect: Dialect) -> Converter:
    length = impl.length if dialect.name in MYSQL else None  # else a long text is an error

    def convert(value: Any) -> Any:
        if not isinstance(value, str) or (length is not None and len(value) > length):
            return UNKNOWN
        return value if type(value) is str else str.__str__(value)

    return convert


def _integer(impl: Any, dialect: Dialect) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is int:
            return value
        return int(value) if isinstance(value, int) else UNKNOWN

    return convert


def _enum(impl: Any, dialect: Dialect) -> Converter:
    cls = impl.enum_class
    if cls is None:
        return lambda value: str.__str__(value) if isinstance(value, str) else UNKNOWN
    return lambda value: value if isinstance(value, cls) else UNKNOWN


def _uuid(impl: Any, dialect: Dialect) -> Converter:
    return _of_type(UUID)(impl, dialect) if impl.as_uuid else _unknown


def _float(impl: Any, dialect: Dialect) -> Converter:
    single = isinstance(impl, sqltypes.REAL) or (impl.precision or 53) <= 24
    exact = isinstance(impl, sqltypes.Double) or dialect.name in EXACT_FLOATS
    if impl.asdecimal or single or not exact:
        return _unknown
    return lambda value: value if type(value) is float and math.isfinite(value) else UNKNOWN


def _numeric(impl: Any, dialect: Dialect) -> Converter:
    scale = impl.scale
    if not impl.asdecimal or scale is None:
        return _unknown
    step, exact = Decimal((0, (1,), -scale)), dialect.name in EXACT_DECIMALS

    def convert(value: Any) -> Any:
        if type(value) is int:
            value = Decimal(value)
        if type(value) is not Decimal or not value.is_finite():
            return UNKNOWN
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if -exponent > scale or (not exact and len(digits) > FLOAT_DIGITS - scale):
            return UNKNOWN
        try:
            return value.quantize(step)
        except InvalidOperation:
            return UNKNOWN

    return convert


def _datetime(impl: Any, dialect: Dialect) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is not dt.datetime or _is_rounded(value, impl, dialect):
            return UNKNOWN
        aware = value.tzinfo is not None
        if dialect.name == "sqlite":
            return value.replace(tzinfo=None) if aware else value
        return value if aware is bool(impl.timezone) else UNKNOWN

    return convert


def _time(impl: Any, dialect: Dialect) -> Converter:
    def convert(value: Any) -> Any:
        plain = type(value) is dt.time and value.tzinfo is None and not impl.timezone
        return value if plain and not _is_rounded(value, impl, dialect) else UNKNOWN

    return convert


def _is_rounded(value: dt.datetime | dt.time, impl: Any, dialect: Dialect) -> bool:
    """Return True if the column may drop digits of a second; MySQL drops all by default."""
    digits = getattr(impl, "fsp" if dialect.name in MYSQL else "precision", None)
    kept = (digits or 0) if dialect.name in MYSQL else (6 if digits is None else digits)
    return value.microsecond != 0 and kept < 6


def _interval(impl: Any, dialect: Dialect) -> Converter:
    known = dialect.name in EXACT_FLOATS and getattr(impl, "precision", None) is None
    return lambda value: value if known and type(value) is dt.timedelta else UNKNOWN


def _binary(impl: Any, dialect: Dialect) -> Converter:
    if isinstance(impl, sqltypes.BINARY) and dialect.name != "sqlite":
        return _unknown  # Padded.
    return _of_type(bytes)(impl, dialect)


def _json(impl: Any, dialect: Dialect) -> Converter:
    return lambda value: value if _is_json(value) else UNKNOWN


def _is_json(value: Any) -> bool:
    """Return True for JSON values that equal their decoded form."""
    if isinstance(value, dict):
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (str, int, bool)


def _array(impl: Any, dialect: Dialect) -> Converter:
    item = converter(impl.item_type, dialect)

    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            return UNKNOWN
        items = [item(each) for each in value]
        return UNKNOWN if UNKNOWN in items else (value if items == value else items)

    return convert


def _hstore(impl: Any, dialect: Dialect) -> Converter:
    def convert(value: Any) -> Any:
        plain = isinstance(value, Mapping) and all(
            type(key) is str and (item is None or type(item) is str) for key, item in value.items()
        )
        return value if plain else UNKNOWN

    return convert


# The first base class of a dialect's type decides.
_MAKERS: tuple[tuple[Any, Callable[[Any, Dialect], Converter]], ...] = (
    (sqltypes.Enum, _enum),
    (sqltypes.Boolean, _of_type(bool)),
    (sqltypes.Integer, _integer),
    (sqltypes.Uuid, _uuid),
    (sqltypes.Float, _float),
    (sqltypes.Numeric, _numeric),
    (sqltypes.Interval, _interval),
    (postgresql.INTERVAL, _interval),
    (sqltypes.DateTime, _datetime),
    (sqltypes.Date, _of_type(dt.date)),
    (sqltypes.Time, _time),
    (sqltypes.JSON, _json),
    (ARRAY, _array),
    (postgresql.HSTORE, _hstore),
    (sqltypes.LargeBinary, _binary),
    (sqltypes._Binary, _binary),
    (sqltypes.String, _text),
)
