"""The ports: Protocols for the core's interfaces to apps, stores, executors and others."""

from thorn_core.ports.app import App, Engine
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.executor import Connection, Executor, Failure
from thorn_core.ports.model_adapter import ModelAdapter, ModelNames, ModelWatcher
from thorn_core.ports.store import Store
from thorn_core.ports.tables import Column, Index, Kind, Table
from thorn_core.ports.transport import Transport
from thorn_core.ports.unit_of_work import UnitOfWork

__all__ = [
    "App",
    "Column",
    "Connection",
    "Dispatcher",
    "Engine",
    "Executor",
    "Failure",
    "Index",
    "Kind",
    "ModelAdapter",
    "ModelNames",
    "ModelWatcher",
    "Store",
    "Table",
    "Transport",
    "UnitOfWork",
]
