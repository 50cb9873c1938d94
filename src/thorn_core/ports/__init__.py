"""The ports: what the core asks of stores, executors and the rest, as Protocols."""

from thorn_core.ports.executor import Connection, Executor, Failure
from thorn_core.ports.tables import Column, Index, Kind, Table

__all__ = ["Column", "Connection", "Executor", "Failure", "Index", "Kind", "Table"]
