"""What Thorn finds by the entry point: stores, units of work, the model adapter, commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thorn_core import Settings, hookimpl
from thorn_sqlalchemy.store import SqlStore
from thorn_sqlalchemy.unit_of_work import SqlUnitOfWork, unit_of_work

SCHEMES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql", "cockroachdb")


@hookimpl
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], SqlStore]]:
    """A store for the URL of a database, or an Engine."""
    return dict.fromkeys(SCHEMES, lambda source, settings: SqlStore(source))


@hookimpl
def thorn_unit_of_work(handle: Any) -> SqlUnitOfWork | None:
    """The unit of work of a Session or a Connection, synchronous or not."""
    return unit_of_work(handle)
