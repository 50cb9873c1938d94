"""Inline: the sender waits until the first attempts are made."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from thorn_core.values import Message

if TYPE_CHECKING:
    from thorn_core.app import Thorn


class InlineDispatcher:
    """Runs the engine on the messages at once; what fails stays pending for a worker.

    Args:
        app: Whose engine it runs.
    """

    publishes = True

    def __init__(self, app: Thorn) -> None:
        self._app = app

    def dispatch(self, messages: Sequence[Message]) -> Future[None]:
        """Make the first attempts; the future ends when they are made."""
        return self._app.submit(self._deliver([message.id for message in messages]))

    async def _deliver(self, message_ids: list[str]) -> None:
        await self._app.engine.adrain(message_ids)

    def close(self) -> None:
        """There is nothing to stop: each sender waits for its own."""
