"""Receipts: the results of sends, and the callbacks for their attempts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import attrs

from thorn_core.errors import ConfigurationError
from thorn_core.ports.app import App
from thorn_core.values import Attempt, Delivery, DeliveryState, Message

Callback = Callable[[Attempt], object]


@attrs.frozen(kw_only=True)
class Callbacks:
    """The callbacks for the attempts of a message.

    Attributes:
        on_success: Called when the recipient responded with 2xx.
        on_error: Called for any other outcome, whether or not another attempt follows.
        on_timeout: Called after a timeout; without it, `on_error` is called.
    """

    on_success: Callback | None = None
    on_error: Callback | None = None
    on_timeout: Callback | None = None

    def call(self, attempt: Attempt) -> None:
        """Call the callback for the outcome of an attempt."""
        if attempt.ok:
            chosen = self.on_success
        elif attempt.timed_out and self.on_timeout is not None:
            chosen = self.on_timeout
        else:
            chosen = self.on_error
        if chosen is not None:
            chosen(attempt)


class Receipt:
    """The result of a send: the message, and the state of its deliveries.

    Truthy when the message has been routed and every delivery was delivered. `await receipt` waits
    for that without blocking the event loop, and returns the same as `wait()`; use
    `asyncio.timeout` to limit the time.

    Example:
        >>> import asyncio
        >>> from thorn_core import Thorn
        >>> async def main(app):
        ...     receipt = await app.asend("invoice.paid", {"number": 7})
        ...     return await receipt
        >>> with Thorn() as app:
        ...     asyncio.run(main(app))
        True
    """

    __slots__ = ("_app", "_duplicate", "_message", "_sent")

    def __init__(self, app: App, message: Message) -> None:
        self._app = app
        self._message = message
        self._duplicate = None if message.keyed else False
        self._sent = False

    def __repr__(self) -> str:
        return f"<Receipt {self._message.id} of {self._message.event}>"

    def __bool__(self) -> bool:
        return self._routed() and all(
            delivery.state is DeliveryState.DELIVERED for delivery in self._pages()
        )

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._wait().__await__()

    @property
    def message(self) -> Message:
        """The message; of a duplicate, the first one sent with its idempotency key."""
        return self._message

    @property
    def duplicate(self) -> bool | None:
        """True if the same sender already sent this event with this idempotency key.

        None while that isn't known, because the message waits in a buffer or for a commit. It is
        known once the message is written: immediately, if that is in the caller's transaction.
        """
        return self._duplicate

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The current deliveries of the message; empty before it has been routed."""
        return tuple(self._pages())

    @property
    def finished(self) -> bool:
        """True when the message has been routed and every delivery is in a final state."""
        return self._routed() and all(delivery.state.finished for delivery in self._pages())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every delivery is in a final state, in any worker.

        Args:
            timeout: Maximum seconds; None waits without a limit.

        Returns:
            Whether every delivery was delivered; False also after a timeout.

        Raises:
            ConfigurationError: Called inside a running event loop, which it would block; or the
                message still waits in a buffer or for a commit.
        """
        self._app.wait_until(self._look, timeout)
        return bool(self)

    async def _wait(self) -> bool:
        await self._app.await_until(self._look)
        return await self._app.await_call(self.__bool__)

    def _look(self) -> bool:
        if not self._there():
            raise ConfigurationError(
                f"{self!r} has not been sent: it waits in a buffer or for a commit, or was rolled"
                f" back; wait for its deliveries after the commit or the end of the buffer"
            )
        return self.finished

    def _there(self) -> bool:
        """Return whether the message was sent, as far as this process or the store knows."""
        return self._sent or self._app.store.message(self._message.id) is not None

    def _routed(self) -> bool:
        return self._there() and self._app.store.routed(self._message.id)

    def _pages(self) -> Iterator[Delivery]:
        return self._app.deliveries(message_id=self._message.id)

    # -- set by the sending code

    def written(self, earlier: str | None) -> None:
        """Note that the message is in the store, perhaps in a transaction that is still open.

        Args:
            earlier: Id of the message that was sent before it with its idempotency key.
        """
        self._duplicate = earlier is not None
        if earlier is not None:
            self._message = attrs.evolve(self._message, id=earlier)

    def committed(self, message: Message) -> None:
        """Note that the message was sent; for a duplicate, pass the first message."""
        self._sent, self._message = True, message
