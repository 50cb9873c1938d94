"""The memory store: bounded, indexed data in this process."""

from thorn_core.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
