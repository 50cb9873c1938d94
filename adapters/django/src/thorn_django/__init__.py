"""Thorn on Django: a durable store, the transactional outbox, model events."""

from thorn_core import get_app

__version__ = "2.0.0"

__all__ = ["get_app"]
