"""The dispatcher port: who runs the engine after a send."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from thorn_core.values import Message


@runtime_checkable
class Dispatcher(Protocol):
    """Who runs the engine after a send, and when. Made by a factory that is given the app.

    Attributes:
        publishes: False keeps messages out of the store altogether.
    """

    publishes: bool

    def dispatch(self, messages: Sequence[Message]) -> Future[None] | None:
        """See to it that these messages, committed to the store by now, are delivered.

        Called in the sender's thread, so it must be quick.

        Returns:
            A future if the sender is to wait for it, else None.
        """
        ...

    def close(self) -> None:
        """Stop what it started; calling it twice is fine."""
        ...
