"""Model events: what happens to Django's instances, told as Thorn's model signals."""

from thorn_django.model_events.adapter import DjangoModelAdapter, model_adapter, start
from thorn_django.model_events.querysets import WebhookManager, WebhookQuerySet

__all__ = ["DjangoModelAdapter", "WebhookManager", "WebhookQuerySet", "model_adapter", "start"]
