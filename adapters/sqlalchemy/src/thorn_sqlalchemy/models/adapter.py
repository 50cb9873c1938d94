"""The model adapter: which classes are SQLAlchemy's, and the values of their instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper, registry

from thorn_core import ModelWebhooks
from thorn_sqlalchemy.models.listeners import start, watch
from thorn_sqlalchemy.models.watches import column_properties, mapper_of, watch_of


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
        >>> model_adapter(Article).values(Article(id=1, title="Hello"))
        {'id': 1, 'title': 'Hello'}
        >>> model_adapter(dict) is None
        True
    """

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the signals that a model's events ask for, for it and for what inherits from it.

        Raises:
            ConfigurationError: An event names a many-to-many field that isn't there. If the
                mappers aren't configured yet, that is raised once they are.
        """
        watch(webhooks.model)

    def values(self, instance: Any) -> Mapping[str, Any]:
        """The values of all columns, by attribute name; what isn't loaded is, in one SELECT."""
        state: InstanceState[Any] = inspect(instance)
        watch = watch_of(state.mapper)
        keys = list(watch.columns or ()) if watch is not None else []
        keys = keys or [prop.key for prop in column_properties(state.mapper)]
        missing = [key for key in keys if key not in state.dict]
        if missing and state.persistent:
            session = state.session
            assert session is not None
            with session.no_autoflush:
                session.refresh(instance, missing)
        elif missing and not state.has_identity:
            return {key: getattr(instance, key) for key in keys}
        # Of one that is detached or gone: what has been loaded.
        return {key: state.dict[key] for key in keys if key in state.dict}


ADAPTER = SqlModelAdapter()


def model_adapter(model: type) -> SqlModelAdapter | None:
    """The adapter, if SQLAlchemy maps a class or a declarative base makes it so; else None.

    A class that is mapped only later, imperatively, is watched from then on.
    """
    start()
    declarative = isinstance(getattr(model, "registry", None), registry)
    mapper: Mapper[Any] | None = mapper_of(model)
    return ADAPTER if declarative or mapper is not None else None
