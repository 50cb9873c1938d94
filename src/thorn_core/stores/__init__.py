"""Where subscriptions, messages, deliveries and attempts live."""

from thorn_core.stores.base import DeliveryQuery, Store
from thorn_core.stores.memory import MemoryStore

__all__ = ["DeliveryQuery", "MemoryStore", "Store"]
