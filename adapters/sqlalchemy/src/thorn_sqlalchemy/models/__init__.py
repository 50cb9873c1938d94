"""Models: sends Thorn's model signals for changes of SQLAlchemy instances."""

from thorn_sqlalchemy.models.adapter import SqlModelAdapter, model_adapter
from thorn_sqlalchemy.models.sessions import WebhookSession

__all__ = ["SqlModelAdapter", "WebhookSession", "model_adapter"]
