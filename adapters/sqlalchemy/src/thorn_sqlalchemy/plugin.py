"""What Thorn finds by the entry point: stores, units of work, the model adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thorn_core import Settings, hookimpl
from thorn_core.stores import sql
from thorn_sqlalchemy.models import SqlModelAdapter, model_adapter
from thorn_sqlalchemy.store import SqlStore
from thorn_sqlalchemy.unit_of_work import SqlUnitOfWork, unit_of_work

# `sqlite` in place of the core's own store on the same tables, which no Session can join.
SCHEMES = ("postgresql", "mysql", "mariadb", "sqlite", "oracle", "mssql", "cockroachdb")


@hookimpl
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], sql.SqlStore]]:
    """A store for the URL of a database, or an Engine."""
    return dict.fromkeys(SCHEMES, _store)


def _store(source: Any, settings: Settings) -> sql.SqlStore:
    return SqlStore(source)


@hookimpl
def thorn_unit_of_work(handle: Any) -> SqlUnitOfWork | None:
    """The unit of work of a Session or a Connection, synchronous or not."""
    return unit_of_work(handle)


@hookimpl
def thorn_model_adapter(model: type) -> SqlModelAdapter | None:
    """The adapter for a class that SQLAlchemy maps, or a declarative base makes it so."""
    return model_adapter(model)
