"""Thorn on SQLAlchemy: a durable store, the transactional outbox, ORM model events."""

from thorn_sqlalchemy.models import WebhookSession
from thorn_sqlalchemy.store import SqlStore
from thorn_sqlalchemy.tables import Tables, define_tables

__version__ = "2.0.0"

__all__ = ["SqlStore", "Tables", "WebhookSession", "define_tables"]
