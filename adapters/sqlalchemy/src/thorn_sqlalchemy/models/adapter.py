"""The model adapter: which classes are SQLAlchemy's, and the values of their instances."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper, Query, registry

from thorn_core import ModelWebhooks
from thorn_core.models import ModelNames, follow
from thorn_sqlalchemy.models.listeners import start, watch
from thorn_sqlalchemy.models.names import names_of, to_python
from thorn_sqlalchemy.models.watches import column_properties, mapper_of


class SqlModelAdapter:
    """Sends the model signals for classes that SQLAlchemy maps.

    Example:
        >>> from sqlalchemy import Integer, String
        >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Article(Base):
        ...     __tablename__ = "articles"
        ...     id = mapped_column(Integer, primary_key=True)
        ...     title = mapped_column(String)
        >>> model_adapter(Article).values(Article(id=1, title="Hello"), ["title"])
        {'title': 'Hello'}
        >>> model_adapter(dict) is None
        True
    """

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the signals that a model's events ask for, for it and for what inherits from it.

        Raises:
            ConfigurationError: An event names a many-to-many field that isn't there. If the
                mappers aren't configured yet, that is raised once they are.
        """
        watch(webhooks.model, self)

    def names(self, model: type) -> ModelNames:
        """The attributes of a mapped class: columns, relationships, hybrids and properties."""
        return names_of(model)

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The values of some attributes; columns that aren't loaded are, in one SELECT."""
        state: InstanceState[Any] = inspect(instance)
        missing = [
            prop.key
            for prop in column_properties(state.mapper)
            if prop.key not in state.dict and prop.key in {f.partition(".")[0] for f in fields}
        ]
        if missing and state.persistent:
            session = state.session
            assert session is not None
            with session.no_autoflush:
                session.refresh(instance, missing)
        return {field: _key_or_value(follow(instance, field)) for field in fields}

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """A value in the type of a column's values, `"2"` as 2; an enum's member by its name.

        Raises:
            ValueError: The column can't hold it.
        """
        return to_python(model, field, value)


def _key_or_value(value: Any) -> Any:
    """Of an instance its primary key, of a collection of them a list of those."""
    if isinstance(value, Query):  # a dynamic relationship
        value = value.all()
    state = inspect(value, raiseerr=False)
    if isinstance(state, InstanceState):
        key = state.mapper.primary_key_from_instance(value)
        return key[0] if len(key) == 1 else list(key)
    if isinstance(value, Mapping):
        related = any(map(_is_instance, value.values()))
        return {key: _key_or_value(item) for key, item in value.items()} if related else value
    if isinstance(value, Collection) and any(map(_is_instance, value)):
        return [_key_or_value(item) for item in value]
    return value


def _is_instance(value: Any) -> bool:
    return isinstance(inspect(value, raiseerr=False), InstanceState)


ADAPTER = SqlModelAdapter()
start(ADAPTER)


def model_adapter(model: type) -> SqlModelAdapter | None:
    """The adapter, if SQLAlchemy maps a class or a declarative base makes it so; else None.

    A class that is mapped only later, imperatively, is watched from then on.
    """
    declarative = isinstance(getattr(model, "registry", None), registry)
    mapper: Mapper[Any] | None = mapper_of(model)
    return ADAPTER if declarative or mapper is not None else None
