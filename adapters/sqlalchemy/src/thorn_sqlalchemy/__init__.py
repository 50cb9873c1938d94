"""Thorn on SQLAlchemy: a durable store, the transactional outbox, ORM model events."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thorn_sqlalchemy.models import WebhookSession
    from thorn_sqlalchemy.store import SqlStore
    from thorn_sqlalchemy.tables import Tables, define_tables

__version__ = "2.0.0"

__all__ = ["SqlStore", "Tables", "WebhookSession", "define_tables"]

# Thorn loads the plugin wherever the package is installed, SQLAlchemy only where it is used.
_MODULES = {
    "SqlStore": "store",
    "Tables": "tables",
    "WebhookSession": "models",
    "define_tables": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
