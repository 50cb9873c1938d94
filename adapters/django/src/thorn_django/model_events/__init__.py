"""Model events: sends Thorn's model signals for changes of Django instances."""

from thorn_django.model_events.adapter import DjangoModelAdapter, model_adapter, start
from thorn_django.model_events.querysets import WebhookManager, WebhookQuerySet

__all__ = ["DjangoModelAdapter", "WebhookManager", "WebhookQuerySet", "model_adapter", "start"]
