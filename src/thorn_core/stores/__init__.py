"""Where subscriptions, messages, deliveries and attempts live."""

from thorn_core.stores.base import DeliveryQuery, Store
from thorn_core.stores.latencies import BUSIEST, STEPS, percentiles
from thorn_core.stores.memory import MemoryStore
from thorn_core.stores.notifications import Notifications

__all__ = [
    "BUSIEST",
    "STEPS",
    "DeliveryQuery",
    "MemoryStore",
    "Notifications",
    "Store",
    "percentiles",
]
