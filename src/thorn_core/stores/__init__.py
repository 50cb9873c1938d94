"""Stores for subscriptions, messages, deliveries and attempts."""

from thorn_core.latencies import BUSIEST, PERCENTILES, STEPS, percentiles
from thorn_core.periods import Periods
from thorn_core.ports.store import Store, Written
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.memory import MemoryStore
from thorn_core.stores.notifications import Notifications
from thorn_core.stores.redaction import redact, redacted
from thorn_core.stores.turns import queue_up, take_turns

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
    "percentiles",
    "queue_up",
    "redact",
    "redacted",
    "take_turns",
]
