"""The dispatcher port: decides who runs the engine after a send, and when."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from thorn_core.values import Message


@runtime_checkable
class Dispatcher(Protocol):
    """Decides who runs the engine after a send, and when; created by a factory with the app.

    Attributes:
        publishes: False keeps messages out of the store altogether.
    """

    publishes: bool

    def dispatch(self, messages: Sequence[Message]) -> Future[None] | None:
        """Have these messages delivered, which are committed to the store.

        Called in the sender's thread, so it must be quick.

        Returns:
            A future if the sender should wait for it, else None. The sender waits for at most
            `inline_timeout` seconds; the work continues afterwards.
        """
        ...

    def close(self) -> None:
        """Stop what it started; may be called twice."""
        ...
