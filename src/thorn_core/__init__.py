"""Thorn: durable, safe, fast and visible webhooks for Python programs."""

from thorn_core import receiver, recipients, signals, signatures, testing
from thorn_core.app import Thorn, get_app
from thorn_core.buffering import Buffer, HeldEvents, buffer_events
from thorn_core.current_app import find_app_by, make_default_app_by
from thorn_core.errors import (
    BufferNotEmpty,
    ConfigurationError,
    InvalidNameError,
    NotFoundError,
    PayloadError,
    ReplayError,
    SecretError,
    SecurityError,
    SignatureError,
    StoreDataError,
    StoreError,
    StoreSetupError,
    ThornError,
    TransportError,
    TransportTimeout,
)
from thorn_core.events import Event
from thorn_core.filters import Q, as_q
from thorn_core.hookspecs import hookimpl
from thorn_core.models import (
    ModelAdapter,
    ModelEvent,
    ModelWatcher,
    ModelWebhooks,
    model_reverser,
    watch_models,
    webhook_model,
)
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.transport import Transport
from thorn_core.ports.unit_of_work import ImmediateUnitOfWork, UnitOfWork
from thorn_core.receipts import Receipt
from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.stores import DeliveryQuery, MemoryStore, Store
from thorn_core.values import (
    OPERATOR,
    Attempt,
    Claim,
    Completion,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Period,
    Request,
    Response,
    Routing,
    Stats,
    Subscription,
)
from thorn_core.worker import Worker

__version__ = "2.0.0"

__all__ = [
    "OPERATOR",
    "Attempt",
    "Buffer",
    "BufferNotEmpty",
    "Claim",
    "Completion",
    "ConfigurationError",
    "Delivery",
    "DeliveryQuery",
    "DeliveryState",
    "Dispatcher",
    "Event",
    "HeldEvents",
    "ImmediateUnitOfWork",
    "InvalidNameError",
    "MemoryStore",
    "Message",
    "ModelAdapter",
    "ModelEvent",
    "ModelWatcher",
    "ModelWebhooks",
    "NotFoundError",
    "Outcome",
    "PayloadError",
    "Period",
    "Q",
    "Receipt",
    "ReplayError",
    "Request",
    "Response",
    "RetryPolicy",
    "Routing",
    "SecretError",
    "SecurityError",
    "Settings",
    "SignatureError",
    "Stats",
    "Store",
    "StoreDataError",
    "StoreError",
    "StoreSetupError",
    "Subscription",
    "Thorn",
    "ThornError",
    "Transport",
    "TransportError",
    "TransportTimeout",
    "UnitOfWork",
    "Worker",
    "as_q",
    "buffer_events",
    "find_app_by",
    "get_app",
    "hookimpl",
    "make_default_app_by",
    "model_reverser",
    "receiver",
    "recipients",
    "signals",
    "signatures",
    "testing",
    "watch_models",
    "webhook_model",
]
