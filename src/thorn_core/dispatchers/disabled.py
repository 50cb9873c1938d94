"""Disabled: drops messages."""

from __future__ import annotations

from collections.abc import Sequence

from thorn_core.ports.app import App
from thorn_core.values import Message


class DisabledDispatcher:
    """Drops messages before they reach the store, for example in data migrations.

    Args:
        app: Unused; every dispatcher's factory gets it.
    """

    publishes = False

    def __init__(self, app: App) -> None:
        self._app = app

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Drop the messages."""

    def close(self) -> None:
        """Do nothing, as there is nothing to stop."""
