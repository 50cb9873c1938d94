"""Names: the attributes of a mapped class that events may use, and the classes of their values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Enum, TypeDecorator
from sqlalchemy.orm import (
    ColumnProperty,
    CompositeProperty,
    MapperProperty,
    RelationshipProperty,
    SynonymProperty,
)

from thorn_core.models import ModelNames, class_names, looks_secret
from thorn_sqlalchemy.models.relationships import collections
from thorn_sqlalchemy.models.watches import mapper_of

DECLARATIVE = ("metadata", "registry", "type_annotation_map")
# Types of secret columns, of SQLAlchemy-Utils and others.
SECRET_TYPES = ("PasswordType", "EncryptedType", "StringEncryptedType")


def names_of(model: type) -> ModelNames:
    """Return the names of a class: a mapped class's attributes, or another class's known ones."""
    plain, mapper = class_names(model), mapper_of(model)
    if mapper is None or not mapper.configured:
        return plain
    leads_to = {name: cls for name, cls in plain.leads_to.items() if name not in DECLARATIVE}
    # They include hybrids and association proxies, whose values may have any class.
    leads_to |= dict.fromkeys(mapper.all_orm_descriptors.keys())
    leads_to |= {prop.key: _class_of(prop) for prop in mapper.attrs}
    return ModelNames(
        leads_to=leads_to,
        many_to_many=frozenset(collections(mapper)),
        secret=frozenset(prop.key for prop in mapper.attrs if _is_secret(prop)),
        # Its `__getattr__` may provide more names.
        open=not plain.leads_to,
    )


def _class_of(prop: MapperProperty[Any]) -> type | None:
    """Return the class of an attribute's value; None if unknown, so that any name may follow."""
    if isinstance(prop, RelationshipProperty):
        return _collection_class(prop) if prop.uselist else prop.mapper.class_
    if isinstance(prop, CompositeProperty):
        made = prop.composite_class
        return made if isinstance(made, type) else None
    if isinstance(prop, SynonymProperty):
        aim = prop.parent.attrs.get(prop.name)
        return None if aim is None else _class_of(aim)
    return type_of(prop) if isinstance(prop, ColumnProperty) else None


def type_of(prop: ColumnProperty[Any]) -> type | None:
    """Return the class of a column's values; None if unknown."""
    column_type: Any = prop.columns[0].type
    if isinstance(column_type, TypeDecorator):
        return None  # Its values may have another class than those of its `impl`.
    try:
        found = column_type.python_type
    except NotImplementedError:
        return None
    # JSON may contain values of any class.
    return found if isinstance(found, type) and found not in (dict, list, object) else None


def _collection_class(prop: RelationshipProperty[Any]) -> type | None:
    if prop.lazy in ("dynamic", "write_only"):
        return None
    made = prop.collection_class or list
    return made if isinstance(made, type) else None


def _is_secret(prop: MapperProperty[Any]) -> bool:
    if isinstance(prop, SynonymProperty):
        aim = prop.parent.attrs.get(prop.name)
        return aim is not None and _is_secret(aim)
    if not isinstance(prop, ColumnProperty):
        return False
    column = prop.columns[0]
    if not isinstance(column, Column):
        return False
    types = {cls.__name__ for cls in type(column.type).__mro__}
    marked = bool(column.info.get("secret") or prop.info.get("secret"))
    return marked or looks_secret(column.name) or not types.isdisjoint(SECRET_TYPES)


# -- values for filters


def to_python(model: type, field: str, value: Any) -> Any:
    """Convert a value to the type of a column's values.

    Raises:
        ValueError: The column can't hold it.
    """
    mapper = mapper_of(model)
    prop = None if mapper is None else mapper.attrs.get(field)
    if isinstance(prop, SynonymProperty):
        return to_python(model, prop.name, value)
    if isinstance(prop, RelationshipProperty):
        aim = prop.mapper.class_
        if not prop.uselist and not isinstance(value, aim):
            raise ValueError(
                f"it refers to a {aim.__name__}; compare its key, or a column of this model"
            )
        return value
    if not isinstance(prop, ColumnProperty):
        return value
    if isinstance(column_type := prop.columns[0].type, Enum):
        return _member(column_type, value)
    cls = type_of(prop)
    if cls is str and isinstance(value, int | Decimal | UUID):
        return str(value)
    read = _READERS.get(cls) if isinstance(value, str) else None
    return value if read is None else read(value)


def _member(column_type: Enum, value: Any) -> Any:
    """Return the stored value for an Enum's member, or for its name or value."""
    cls: Any = column_type.enum_class
    if cls is None:
        if value not in column_type.enums:
            raise ValueError(f"{value!r} is not one of {', '.join(column_type.enums)}")
        return value
    if isinstance(value, cls):
        return value
    if isinstance(value, str) and value in cls.__members__:
        return cls[value]
    return cls(value)


_READERS: Mapping[type | None, Callable[[str], Any]] = {
    int: int,
    float: float,
    Decimal: Decimal,
    UUID: UUID,
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
}
