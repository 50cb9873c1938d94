"""Models: what happens to SQLAlchemy's instances, told as Thorn's model signals."""

from thorn_sqlalchemy.models.adapter import SqlModelAdapter, model_adapter
from thorn_sqlalchemy.models.sessions import WebhookSession

__all__ = ["SqlModelAdapter", "WebhookSession", "model_adapter"]
