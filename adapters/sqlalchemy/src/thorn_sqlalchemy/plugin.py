"""The entry point's plugin: stores, units of work, the model adapter.

Thorn loads it wherever the package is installed, even in programs without SQLAlchemy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from thorn_core import ModelAdapter, Settings, UnitOfWork, hookimpl

if TYPE_CHECKING:
    from thorn_sqlalchemy.store import SqlStore

# For `sqlite`, replaces the core's own store on the same tables, which no Session can join.
SCHEMES = ("postgresql", "mysql", "mariadb", "sqlite")


@hookimpl
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], SqlStore]]:
    """Return a store for a database URL or an Engine."""
    return dict.fromkeys(SCHEMES, _store)


def _store(source: Any, settings: Settings) -> SqlStore:
    from thorn_sqlalchemy.store import SqlStore

    return SqlStore(source)


@hookimpl
def thorn_unit_of_work(handle: Any) -> UnitOfWork | None:
    """Return the unit of work of a Session or a Connection, synchronous or asynchronous."""
    if "sqlalchemy" not in sys.modules:
        return None
    from thorn_sqlalchemy.unit_of_work import unit_of_work

    return unit_of_work(handle)


@hookimpl
def thorn_model_adapter(model: type) -> ModelAdapter | None:
    """Return the adapter for a mapped class or a class with a declarative base."""
    if "sqlalchemy.orm" not in sys.modules:
        return None
    from thorn_sqlalchemy.models import model_adapter

    return model_adapter(model)
