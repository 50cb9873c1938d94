"""Primary keys of mapped classes, and lookups by primary key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Mapper

T = TypeVar("T")
Key = tuple[Any, ...]

# The number of rows to read by key at once: below every database's limit of parameters.
CHUNK = 500


def key_names(mapper: Mapper[Any]) -> list[str]:
    """Return the names of the primary key's attributes."""
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def attributes(entity: Any, names: Collection[str]) -> list[InstrumentedAttribute[Any]]:
    """Return attributes of a class or its alias by name, for use in a statement."""
    return [getattr(entity, name) for name in names]


def locking(statement: Select[Any], mapper: Mapper[Any], entity: Any = None) -> Select[Any]:
    """Lock the rows of a SELECT in the table of a class or its alias."""
    # Not with the class: PostgreSQL can't lock the nullable side of an outer join to a subclass.
    return statement.with_for_update(of=mapper.local_table if entity is None else entity)


def among(
    columns: Sequence[InstrumentedAttribute[Any]], keys: Collection[Key]
) -> ColumnElement[bool]:
    """Return the condition that some columns have one of these keys."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return or_(
        *(and_(*(c == value for c, value in zip(columns, key, strict=True))) for key in keys)
    )


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split keys into chunks."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
