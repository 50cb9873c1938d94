"""Where subscriptions, messages, deliveries and attempts live."""

from thorn_core.stores.base import DeliveryQuery, Store, Written
from thorn_core.stores.latencies import BUSIEST, PERCENTILES, STEPS, percentiles
from thorn_core.stores.memory import MemoryStore
from thorn_core.stores.notifications import Notifications
from thorn_core.stores.periods import Periods
from thorn_core.stores.redaction import redact, redacted
from thorn_core.stores.turns import queue_up, take_turns
from thorn_core.values import delivery_range

__all__ = [
    "BUSIEST",
    "PERCENTILES",
    "STEPS",
    "DeliveryQuery",
    "MemoryStore",
    "Notifications",
    "Periods",
    "Store",
    "Written",
    "delivery_range",
    "percentiles",
    "queue_up",
    "redact",
    "redacted",
    "take_turns",
]
