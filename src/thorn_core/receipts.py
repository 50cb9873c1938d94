"""Receipts: what a send gives back, and whom to call back after its attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs

from thorn_core.values import Attempt, Delivery, DeliveryState, Message

if TYPE_CHECKING:
    from thorn_core.app import Thorn

Callback = Callable[[Attempt], object]


@attrs.frozen(kw_only=True)
class Callbacks:
    """Whom to call back after an attempt of a message.

    Attributes:
        on_success: The recipient answered 2xx.
        on_error: It didn't, and there may or may not be another attempt.
        on_timeout: The time was up; without it `on_error` is called.
    """

    on_success: Callback | None = None
    on_error: Callback | None = None
    on_timeout: Callback | None = None

    def call(self, attempt: Attempt) -> None:
        """Call the one that fits the attempt."""
        if attempt.ok:
            chosen = self.on_success
        elif attempt.timed_out and self.on_timeout is not None:
            chosen = self.on_timeout
        else:
            chosen = self.on_error
        if chosen is not None:
            chosen(attempt)


class Receipt:
    """What a send gives back: the message, and how its deliveries stand.

    Truthy when the message has been routed and every delivery was delivered.

    Attributes:
        message: The message.
    """

    __slots__ = ("_app", "message")

    def __init__(self, app: Thorn, message: Message) -> None:
        self._app = app
        self.message = message

    def __repr__(self) -> str:
        return f"<Receipt {self.message.id} of {self.message.event}>"

    def __bool__(self) -> bool:
        return self._app.store.routed(self.message.id) and all(
            delivery.state is DeliveryState.DELIVERED for delivery in self._pages()
        )

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The message's deliveries as they stand now; none before it has been routed."""
        return tuple(self._pages())

    @property
    def settled(self) -> bool:
        """True when the message has been routed and every delivery is in a final state."""
        return self._app.store.routed(self.message.id) and all(
            delivery.state.settled for delivery in self._pages()
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every delivery is settled, by whatever worker.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Returns:
            Whether every delivery was delivered: False also when the time was up.
        """
        self._app.wait_until(lambda: self.settled, timeout)
        return bool(self)

    def _pages(self) -> Iterator[Delivery]:
        return self._app.deliveries(message_id=self.message.id)
