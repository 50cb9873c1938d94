"""The memory store: everything in this process, bounded, indexed."""

from thorn_core.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
