"""The dispatcher port: decides who runs the engine after a send, and when."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from thorn_core.values import Message


@runtime_checkable
class Dispatcher(Protocol):
    """Decides who runs the engine after a send, and when; a factory creates it with the app.

    Attributes:
        publishes: If False, the store gets no messages.
    """

    publishes: bool

    def dispatch(self, messages: Sequence[Message]) -> Future[None] | None:
        """Have committed messages delivered.

        The sender's thread calls it, so it must return quickly.

        Returns:
            A future if the sender should wait, else None. The sender waits for at most
            `inline_timeout` seconds; the work continues afterwards.
        """
        ...

    def close(self) -> None:
        """Stop what `dispatch` started; calling it twice is safe."""
        ...
