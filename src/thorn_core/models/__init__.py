"""Models that send events: webhook_model, ModelEvent and their adapters."""

from thorn_core.models.adapters import ModelAdapters, PlainModelAdapter
from thorn_core.models.decorating import watch_models, webhook_model
from thorn_core.models.event import ModelEvent
from thorn_core.models.names import (
    class_names,
    follow,
    looks_secret,
    split_path,
)
from thorn_core.models.reversing import ModelReverser, model_reverser
from thorn_core.models.webhooks import ModelWebhooks, webhooks_of
from thorn_core.ports.model_adapter import ModelAdapter, ModelNames, ModelWatcher

__all__ = [
    "ModelAdapter",
    "ModelAdapters",
    "ModelEvent",
    "ModelNames",
    "ModelReverser",
    "ModelWatcher",
    "ModelWebhooks",
    "PlainModelAdapter",
    "class_names",
    "follow",
    "looks_secret",
    "model_reverser",
    "split_path",
    "watch_models",
    "webhook_model",
    "webhooks_of",
]
