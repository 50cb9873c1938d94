"""Sending: how a message gets from an event to the store and on to a dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from thorn_core import signals
from thorn_core.answers import made
from thorn_core.buffering import HeldEvents, current_buffer
from thorn_core.dispatchers.base import Dispatcher
from thorn_core.errors import NotFoundError
from thorn_core.receipts import Callbacks
from thorn_core.stores.base import Ambient, Store
from thorn_core.unit_of_work import IMMEDIATE, UnitOfWork
from thorn_core.values import Attempt, Delivery, Message

if TYPE_CHECKING:
    from thorn_core.app import Thorn

logger = logging.getLogger(__name__)

# Messages whose callbacks are remembered; of more, the oldest lose theirs.
CALLBACK_LIMIT = 10_000


class Sending:
    """One app's dispatchers, and the way of a message to them.

    Args:
        app: The app.
        default: Name of its own dispatcher.
    """

    def __init__(self, app: Thorn, default: str) -> None:
        self._app = app
        self._default = default
        self._lock = threading.Lock()
        self._dispatchers: dict[str, Dispatcher] = {}
        self._substitute: Dispatcher | None = None
        store = app.store
        self._unsaid = store.unit_of_work() if isinstance(store, Ambient) else IMMEDIATE
        self._callbacks: OrderedDict[str, Callbacks] = OrderedDict()

    def dispatcher(self, name: str | None = None) -> Dispatcher:
        """The dispatcher of a name, made at first use; the app's own for None.

        Raises:
            ConfigurationError: No plugin knows the name, or what it gives is no dispatcher.
        """
        if self._substitute is not None:
            return self._substitute
        name = name or self._default
        dispatcher = self._dispatchers.get(name)
        if dispatcher is None:
            with self._lock:
                dispatcher = self._dispatchers.get(name)
                if dispatcher is None:
                    dispatcher = made(
                        self._app.plugins.dispatcher(name, self._app),
                        Dispatcher,
                        f"the factory of the dispatcher {name!r}",
                    )
                    self._dispatchers[name] = dispatcher
        return dispatcher

    @contextlib.contextmanager
    def substituted(self, dispatcher: Dispatcher) -> Iterator[None]:
        """Use this dispatcher for everything inside the block."""
        former, self._substitute = self._substitute, dispatcher
        try:
            yield
        finally:
            self._substitute = former

    def close(self) -> None:
        """Close every dispatcher."""
        for dispatcher in list(self._dispatchers.values()):
            try:
                dispatcher.close()
            except Exception:
                logger.exception("%r failed to close", dispatcher)

    def send(
        self, message: Message, within: Any, dispatcher: str | None, callbacks: Callbacks | None
    ) -> None:
        """Hand a message over, and wait where the dispatcher wants it.

        Inside a running event loop it doesn't wait, for that loop may be what it waits for.
        """
        wait_for(self._hand_over(message, self._unit(within), dispatcher, callbacks))

    async def asend(
        self, message: Message, within: Any, dispatcher: str | None, callbacks: Callbacks | None
    ) -> None:
        """Hand a message over, and await what the dispatcher wants awaited."""
        unit = self._unit(within)
        hand_over = partial(self._hand_over, message, unit, dispatcher, callbacks)
        if unit is IMMEDIATE and self._app.store.blocking:
            future = await asyncio.to_thread(hand_over)
        else:
            future = await unit.run(hand_over)
        if future is not None:
            await asyncio.wrap_future(future)

    def _unit(self, within: Any) -> UnitOfWork:
        return self._unsaid if within is None else self._app.plugins.unit_of_work(within)

    def _hand_over(
        self,
        message: Message,
        unit: UnitOfWork,
        dispatcher: str | None,
        callbacks: Callbacks | None,
    ) -> Future[None] | None:
        if callbacks is not None:
            self._remember(message, callbacks)
        buffer = current_buffer()
        # A transaction may end before a buffer does, and would take what it held with it.
        if buffer is None or (unit.open and not isinstance(buffer, HeldEvents)):
            return self._publish([message], unit, dispatcher)

        def publish(messages: Sequence[Message]) -> None:
            wait_for(self._publish(messages, unit, dispatcher))

        buffer.add((self, unit, dispatcher), publish, message)
        return None

    def _publish(
        self, messages: Sequence[Message], unit: UnitOfWork, name: str | None
    ) -> Future[None] | None:
        """Write messages to the store in the unit of work, and tell the dispatcher at its commit.

        Returns:
            What the sender is to wait for, if the commit was now.
        """
        dispatcher = self.dispatcher(name)
        if dispatcher.publishes:
            self._app.store.publish(messages, within=unit)
        if unit is IMMEDIATE:
            return self._committed(messages, dispatcher)

        at_once: list[Future[None] | None] = []
        publishing = True

        def committed() -> None:
            future = self._committed(messages, dispatcher)
            if publishing:
                at_once.append(future)
            else:
                wait_for(future)

        unit.on_commit(committed)
        publishing = False
        return at_once[0] if at_once else None

    def _committed(
        self, messages: Sequence[Message], dispatcher: Dispatcher
    ) -> Future[None] | None:
        future = dispatcher.dispatch(messages)
        if signals.message_sent.receivers:
            for message in messages:
                signals.tell(signals.message_sent, self._app, message=message)
        return future

    def _remember(self, message: Message, callbacks: Callbacks) -> None:
        with self._lock:
            self._callbacks[message.id] = callbacks
            if len(self._callbacks) > CALLBACK_LIMIT:
                self._callbacks.popitem(last=False)

    def attempted(self, attempt: Attempt, delivery: Delivery) -> None:
        """Call back whoever asked to be, after an attempt; what they raise is logged."""
        if not self._callbacks:
            return
        callbacks = self._callbacks.get(delivery.message_id)
        if callbacks is not None:
            try:
                with self._app.plugins.calling():
                    callbacks.call(attempt)
            except Exception:
                logger.exception("a callback of message %s failed", delivery.message_id)


class MessagesById(Sequence[Message]):
    """Messages in the store, each read when it is looked at: few dispatchers ever do.

    Args:
        store: Where they are.
        ids: Which.
    """

    def __init__(self, store: Store, ids: Sequence[str]) -> None:
        self._store = store
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> MessagesById: ...

    def __getitem__(self, index: int | slice) -> Message | MessagesById:
        if isinstance(index, slice):
            return MessagesById(self._store, self._ids[index])
        message = self._store.message(self._ids[index])
        if message is None:
            raise NotFoundError(f"there is no message {self._ids[index]!r} any more")
        return message


def wait_for(future: Future[None] | None) -> None:
    """Wait for what a dispatcher wants waited for, but never inside a running event loop."""
    if future is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        future.result()
