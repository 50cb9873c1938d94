"""The SQL store: statements, rows and rules for databases, once."""

from thorn_core.stores.sql.sqlite import SqliteExecutor
from thorn_core.stores.sql.store import SqlStore

__all__ = ["SqlStore", "SqliteExecutor"]
