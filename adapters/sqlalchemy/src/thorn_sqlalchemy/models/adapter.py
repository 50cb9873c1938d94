"""The model adapter: recognises SQLAlchemy's classes, and reads values of their instances."""

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
    """Sends the model signals for mapped classes of SQLAlchemy.

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
        """Send the signals that a model's events need, for the model and its subclasses.

        Raises:
            ConfigurationError: An event uses an unknown many-to-many field. The configuration of
                the mappers raises it if that happens later.
        """
        watch(webhooks.model, self)

    def names(self, model: type) -> ModelNames:
        """Return a mapped class's attributes: columns, relationships, hybrids and properties."""
        return names_of(model)

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """Return the values of some attributes; load missing columns in one SELECT."""
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
        """Convert a value to the type of a column's values: `"2"` to 2, a name to an enum's member.

        Raises:
            ValueError: The column can't hold it.
        """
        return to_python(model, field, value)


def _key_or_value(value: Any) -> Any:
    """Return an instance's primary key, or a list of keys for a collection."""
    if isinstance(value, Query):  # A dynamic relationship.
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
    """Return the adapter for a mapped class or a class with a declarative base, else None.

    A class with a later imperative mapping is watched from then on.
    """
    declarative = isinstance(getattr(model, "registry", None), registry)
    mapper: Mapper[Any] | None = mapper_of(model)
    return ADAPTER if declarative or mapper is not None else None
