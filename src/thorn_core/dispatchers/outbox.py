"""Outbox: worker processes, here or elsewhere, find the messages in the store."""

from __future__ import annotations

from collections.abc import Sequence

from thorn_core.ports.app import App
from thorn_core.values import Message


class OutboxDispatcher:
    """Leaves all deliveries to workers.

    Args:
        app: Unused; every dispatcher's factory gets it.
    """

    publishes = True

    def __init__(self, app: App) -> None:
        self._app = app

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Do nothing: the store has the messages and notifies workers."""

    def close(self) -> None:
        """Do nothing, as there is nothing to stop."""
