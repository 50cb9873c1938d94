"""Watches: the needs of the events of each mapped class, determined once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

import attrs
from sqlalchemy import Column, Dialect, inspect
from sqlalchemy.orm import (
    ColumnProperty,
    CompositeProperty,
    Mapper,
    MapperProperty,
    RelationshipDirection,
    RelationshipProperty,
    SynonymProperty,
)
from sqlalchemy.orm.exc import UnmappedColumnError

from thorn_core import ModelAdapter, ModelWebhooks
from thorn_core.models import webhooks_of
from thorn_sqlalchemy.models.relationships import Link
from thorn_sqlalchemy.models.stored import Converter, converter

Compare = Callable[[Any, Any], bool]

M2M_TRIGGERS = ("m2m_add", "m2m_remove", "m2m_clear")


@attrs.define(eq=False)
class Watch:
    """The needs of the events of a mapped class. It refers to no class, so classes can be freed.

    Attributes:
        create, change, delete: Whether an event needs this trigger.
        bulk: Whether statements that change many rows are watched, too.
        fields: The needed triggers by many-to-many field.
        previous_fields: The fields whose former values filters need.
        columns: The comparison of a column's values, by attribute; None until the mappers are
            configured.
        wanted: The columns whose former values `previous_fields` needs.
        assigned: The columns that an UPDATE sets by itself.
        computed: The columns in both `assigned` and `wanted`.
        derived: The names in `previous_fields` without a column, with the columns they depend on;
            None means all columns.
        references: The many-to-one relationships.
        converters: Functions that predict stored values, by dialect and attribute.
        links: The relationships whose collections are examined in its instances.
        listening: The mapper events with listeners.
        declared: The declarations of the events.
        adapter: The adapter that checks the declarations.
        refused: Whether the check of the declarations has raised its error.
    """

    create: bool = False
    change: bool = False
    delete: bool = False
    bulk: bool = False
    fields: Mapping[str, frozenset[str]] = attrs.field(factory=dict)
    previous_fields: frozenset[str] = frozenset()
    columns: Mapping[str, Compare] | None = None
    wanted: frozenset[str] = frozenset()
    assigned: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    derived: Mapping[str, frozenset[str] | None] = attrs.field(factory=dict)
    references: frozenset[str] = frozenset()
    converters: WeakKeyDictionary[Dialect, Mapping[str, Converter]] = attrs.field(
        factory=WeakKeyDictionary
    )
    links: tuple[Link, ...] = ()
    listening: set[str] = attrs.field(factory=set)
    declared: frozenset[ref[ModelWebhooks]] = frozenset()
    adapter: ModelAdapter | None = None
    refused: bool = False

    def ask(self, declared: Collection[ModelWebhooks], adapter: ModelAdapter) -> None:
        """Add the needs of the events of a class and its base classes."""
        self.declared, self.adapter = frozenset(map(ref, declared)), adapter
        self.create = any(webhooks.triggered("create") for webhooks in declared)
        self.change = any(webhooks.triggered("change") for webhooks in declared)
        self.delete = any(webhooks.triggered("delete") for webhooks in declared)
        self.bulk = any(webhooks.bulk for webhooks in declared)
        self.previous_fields = frozenset().union(*(w.previous_fields for w in declared))
        self.fields = {
            field: frozenset(
                trigger
                for trigger in M2M_TRIGGERS
                if any(webhooks.triggered(trigger, field) for webhooks in declared)
            )
            for webhooks in declared
            for field in webhooks.m2m_fields
        }
        self.columns, self.refused = None, False

    def resolve(self, mapper: Mapper[Any]) -> Mapping[str, Compare]:
        """Determine the attributes that need configured mappers.

        Raises:
            ConfigurationError: The events use an unknown name.
        """
        for webhooks in filter(None, (reference() for reference in self.declared)):
            assert self.adapter is not None
            webhooks.check(self.adapter, mapper.class_)
        columns = {
            prop.key: prop.columns[0].type.compare_values for prop in column_properties(mapper)
        }
        self.references = frozenset(
            prop.key
            for prop in mapper.relationships
            if prop.direction is RelationshipDirection.MANYTOONE and not prop.viewonly
        )
        behind = {
            field: _columns_behind(mapper, mapper.attrs.get(field))
            for field in self.previous_fields
        }
        self.derived = {field: some for field, some in behind.items() if field not in columns}
        self.wanted = frozenset().union(
            *(columns if some is None else some & columns.keys() for some in behind.values())
        )
        self.assigned = computed_columns(mapper)
        self.computed = self.wanted & self.assigned
        self.converters.clear()
        self.columns = columns
        return columns

    def converters_of(self, mapper: Mapper[Any], dialect: Dialect) -> Mapping[str, Converter]:
        """Return the functions that predict stored values, by attribute; cache them per dialect."""
        found = self.converters.get(dialect)
        if found is None:
            found = self.converters[dialect] = {
                prop.key: converter(prop.columns[0].type, dialect)
                for prop in column_properties(mapper)
            }
        return found


_watches: WeakKeyDictionary[Mapper[Any], Watch] = WeakKeyDictionary()


def watch_of(mapper: Mapper[Any]) -> Watch | None:
    """Return the watch of a mapped class, or None."""
    return _watches.get(mapper)


def make_watch(mapper: Mapper[Any]) -> Watch:
    """Return the watch of a mapped class; create it if there is none."""
    watch = _watches.get(mapper)
    if watch is None:
        watch = _watches[mapper] = Watch()
    return watch


def all_watches() -> list[tuple[Mapper[Any], Watch]]:
    """Return all watches."""
    return list(_watches.items())


def declarations(model: type) -> list[ModelWebhooks]:
    """Return the webhooks of a class and of its decorated base classes."""
    declared = map(webhooks_of, model.__mro__)
    return [webhooks for webhooks in declared if webhooks is not None]


def mapper_of(model: type) -> Mapper[Any] | None:
    """Return the mapper of a class, not of a base class."""
    mapper: Mapper[Any] | None = inspect(model, raiseerr=False)
    return mapper if isinstance(mapper, Mapper) and mapper.class_ is model else None


def mappers_below(model: type) -> Iterator[Mapper[Any]]:
    """Return the mappers of a class and its subclasses."""
    mapper = mapper_of(model)
    if mapper is not None:
        yield mapper
    subclasses: list[type] = model.__subclasses__()
    for subclass in subclasses:
        yield from mappers_below(subclass)


def column_properties(mapper: Mapper[Any]) -> list[ColumnProperty[Any]]:
    """Return the attributes with a column of a table, without SQL expressions."""
    return [
        prop
        for prop in mapper.column_attrs
        if isinstance(prop.columns[0], Column) and not prop.key.startswith("_sa_")
    ]


def computed_columns(mapper: Mapper[Any]) -> frozenset[str]:
    """Return the attributes that an UPDATE sets by itself: times of changes, and the version."""
    return frozenset(
        prop.key
        for prop in column_properties(mapper)
        if (column := prop.columns[0]).onupdate is not None
        or column.server_onupdate is not None
        or column is mapper.version_id_col
    )


def asks(mapper: Mapper[Any], trigger: str) -> bool:
    """Return True if events of a class or a subclass need a trigger of statements."""
    watches = (_watches.get(below) for below in mapper.self_and_descendants)
    return any(w is not None and w.bulk and getattr(w, trigger) for w in watches)


def attribute_names(mapper: Mapper[Any], given: Iterable[Any]) -> list[str]:
    """Return the attributes that a statement may change and those that filters need.

    Args:
        mapper: The mapper of the statement's class.
        given: The columns it sets, or the names of their attributes; any other value means all
            columns.
    """
    columns = {prop.key: prop.columns[0] for prop in column_properties(mapper)}
    names = set(computed_columns(mapper))
    for below in mapper.self_and_descendants:
        watch = _watches.get(below)
        if watch is not None:
            names |= watch.wanted
    for key in given:
        try:
            names.add(key if key in columns else mapper.get_property_by_column(key).key)
        except (UnmappedColumnError, AttributeError):
            names |= columns.keys()
    keys = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
    return [name for name in columns if name in names and name not in keys]


def _columns_behind(mapper: Mapper[Any], prop: MapperProperty[Any] | None) -> frozenset[str] | None:
    """Return the columns behind an attribute's value; None if unknown."""
    if isinstance(prop, ColumnProperty):
        return frozenset({prop.key})
    if isinstance(prop, RelationshipProperty):
        if prop.direction is not RelationshipDirection.MANYTOONE:
            return frozenset()
        return frozenset(mapper.get_property_by_column(c).key for c in prop.local_columns)
    if isinstance(prop, CompositeProperty):
        return frozenset(part.key for part in prop.props)
    if isinstance(prop, SynonymProperty):
        return _columns_behind(mapper, mapper.attrs.get(prop.name))
    return None  # A hybrid or a property.
