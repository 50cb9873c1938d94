"""The engine on a store: routes messages, claims deliveries, records outcomes."""

from thorn_core.worker.thread import LoopThread, new_event_loop
from thorn_core.worker.wiring import EventOptions, Wiring
from thorn_core.worker.worker import Worker

__all__ = ["EventOptions", "LoopThread", "Wiring", "Worker", "new_event_loop"]
