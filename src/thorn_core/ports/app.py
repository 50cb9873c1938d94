"""The app port: the interface of `Thorn` for events, models, dispatchers and receipts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Protocol, TypeVar

from thorn_core.ports.model_adapter import ModelAdapter
from thorn_core.ports.store import Store
from thorn_core.settings import Settings
from thorn_core.values import Delivery, Message, Subscription

T = TypeVar("T")


class Engine(Protocol):
    """The worker that an app's dispatchers share; its coroutines run on the app's own loop."""

    async def arun(self) -> None:
        """Work until it is stopped."""
        ...

    async def adrain(
        self, message_ids: Collection[str] | None = None, *, at_once: bool = False
    ) -> int:
        """Work until no delivery is due; return the number of attempts.

        Args:
            message_ids: Only deliveries of these messages; None is all.
            at_once: Attempt all of them at the same time.
        """
        ...

    def stop(self) -> None:
        """Make `arun` end soon."""
        ...


class App(Protocol):
    """The services of the app for events, models, dispatchers and receipts.

    Attributes:
        settings: The app's settings.
        store: The app's store.
        clock: Returns the time, aware UTC.
        kept_events: Events declared for this app, by name; the app keeps them alive.
    """

    settings: Settings
    store: Store
    clock: Callable[[], datetime]
    kept_events: dict[str, Any]

    # -- for events and models

    def send_message(
        self,
        message: Message,
        *,
        within: Any = None,
        at_once: bool = False,
        dispatcher: str | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Send a complete message; return its `Receipt`."""
        ...

    async def asend_message(
        self,
        message: Message | Callable[[], Message],
        *,
        within: Any = None,
        dispatcher: str | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Send a complete message without blocking the loop; return its `Receipt`."""
        ...

    def check_dispatcher(self, name: str) -> None:
        """Raise ConfigurationError unless a plugin knows the dispatcher."""
        ...

    def subscribers(self, event: str, *, sender: Any = None) -> Iterator[Subscription]:
        """Return the subscriptions that match an event now."""
        ...

    def count_unsent(self, event: str) -> None:
        """Count an event that could not be sent."""
        ...

    def model_adapter(self, model: type) -> ModelAdapter:
        """Return the ORM adapter for a class."""
        ...

    def reverse(self, view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the URL of a view, absolute if the base URL is known."""
        ...

    def absolute_url(self, url: str) -> str:
        """Turn a path into a URL, if the base URL is known."""
        ...

    # -- for dispatchers

    @property
    def engine(self) -> Engine:
        """The worker on the app's own loop."""
        ...

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the app's own loop."""
        ...

    # -- for receipts

    def deliveries(self, *, message_id: str | None = None) -> Iterator[Delivery]:
        """Return the deliveries of a message."""
        ...

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition is true, for a limited time; return False on a time-out."""
        ...

    async def await_until(self, done: Callable[[], bool]) -> None:
        """Wait until a condition is true, without blocking the loop."""
        ...

    async def await_call(self, function: Callable[[], T]) -> T:
        """Call a function that uses the store, without blocking the loop."""
        ...

    # -- for checks

    def check_transport(self) -> None:
        """Raise ConfigurationError if the transport can't be made."""
        ...

    def import_events(self, *modules: str) -> None:
        """Import the modules that declare events."""
        ...
