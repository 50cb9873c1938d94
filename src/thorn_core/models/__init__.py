"""Models that send events: webhook_model, ModelEvent, and what they need of a model."""

from thorn_core.models.adapters import (
    ModelAdapter,
    ModelAdapters,
    ModelWatcher,
    PlainModelAdapter,
)
from thorn_core.models.decorating import watch_models, webhook_model
from thorn_core.models.event import ModelEvent
from thorn_core.models.reversing import ModelReverser, model_reverser
from thorn_core.models.webhooks import ModelWebhooks

__all__ = [
    "ModelAdapter",
    "ModelAdapters",
    "ModelEvent",
    "ModelReverser",
    "ModelWatcher",
    "ModelWebhooks",
    "PlainModelAdapter",
    "model_reverser",
    "watch_models",
    "webhook_model",
]
