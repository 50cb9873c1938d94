"""Primary keys: of a mapped class, and the rows that have them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Mapper

T = TypeVar("T")
Key = tuple[Any, ...]

# Rows read by their keys at once: below every database's limit of bound values.
CHUNK = 500


def key_names(mapper: Mapper[Any]) -> list[str]:
    """The names of the attributes that make the primary key."""
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def attributes(entity: Any, names: Collection[str]) -> list[InstrumentedAttribute[Any]]:
    """The attributes of these names, of a class or an alias of it, for use in a statement."""
    return [getattr(entity, name) for name in names]


def locking(statement: Select[Any], mapper: Mapper[Any], entity: Any = None) -> Select[Any]:
    """Lock the rows that a SELECT reads: of the class's own table, or of an alias of it."""
    # Not of the class: PostgreSQL can't lock what an outer join to a subclass's table may lack.
    return statement.with_for_update(of=mapper.local_table if entity is None else entity)


def among(
    columns: Sequence[InstrumentedAttribute[Any]], keys: Collection[Key]
) -> ColumnElement[bool]:
    """The condition that some columns hold one of these keys."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return or_(
        *(and_(*(c == value for c, value in zip(columns, key, strict=True))) for key in keys)
    )


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Some at a time."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
