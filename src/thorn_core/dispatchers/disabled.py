"""Disabled: messages go nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thorn_core.values import Message

if TYPE_CHECKING:
    from thorn_core.app import Thorn


class DisabledDispatcher:
    """Drops messages before they reach the store, as for data migrations.

    Args:
        app: Not needed; every dispatcher's factory gets it.
    """

    publishes = False

    def __init__(self, app: Thorn) -> None:
        self._app = app

    def dispatch(self, messages: Sequence[Message]) -> None:
        """They are dropped."""

    def close(self) -> None:
        """Nothing was started."""
