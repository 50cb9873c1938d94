"""Pass messages from events to the store and to dispatchers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar, Unpack, cast, overload

import attrs

from thorn_core import signals
from thorn_core.answers import made
from thorn_core.buffering import Buffer, HeldEvents, current_buffer
from thorn_core.dispatchers.waiting import Waiting
from thorn_core.errors import NotFoundError
from thorn_core.events import Event, event_for
from thorn_core.plugins import Plugins
from thorn_core.ports.app import App
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.store import Ambient, SingleWriter, Store
from thorn_core.ports.unit_of_work import IMMEDIATE, UnitOfWork
from thorn_core.receipts import Callbacks, Receipt
from thorn_core.send_options import ModelSendArguments, SendOptions
from thorn_core.values import Attempt, Delivery, Message, Subscription

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Maximum messages with remembered callbacks; the oldest are evicted.
CALLBACK_LIMIT = 10_000


class Sending:
    """One app's dispatchers, and the path of messages to them.

    Args:
        app: The app.
        plugins: The app's plugins.
        default: Name of the app's dispatcher.
    """

    def __init__(self, app: App, plugins: Plugins, default: str) -> None:
        self._app, self._plugins = app, plugins
        self._default = default
        self._lock = threading.Lock()
        self._dispatchers: dict[str, Dispatcher] = {}
        self._substitute: Dispatcher | None = None
        # Messages with idempotency keys that a substitute withheld from the store.
        self._unpublished: dict[bytes, Message] = {}
        store = app.store
        self._unsaid = store.unit_of_work() if isinstance(store, Ambient) else IMMEDIATE
        self._callbacks: OrderedDict[str, Callbacks] = OrderedDict()
        self._warned_of_lock = self._warned_of_buffer = False

    def dispatcher(self, name: str | None = None) -> Dispatcher:
        """Return the dispatcher with a name, created on first use; the app's default for None.

        Raises:
            ConfigurationError: No plugin knows the name, or the result isn't a dispatcher.
        """
        if self._substitute is not None:
            if name is not None:
                self._plugins.dispatcher_factory(name)  # raises the same errors as in production
            return self._substitute
        name = name or self._default
        dispatcher = self._dispatchers.get(name)
        if dispatcher is None:
            with self._lock:
                dispatcher = self._dispatchers.get(name)
                if dispatcher is None:
                    dispatcher = made(
                        self._plugins.dispatcher(name, self._app),
                        Dispatcher,
                        f"the factory of the dispatcher {name!r}",
                    )
                    self._dispatchers[name] = dispatcher
        return dispatcher

    @contextlib.contextmanager
    def substituted(self, dispatcher: Dispatcher) -> Iterator[None]:
        """Use this dispatcher for everything inside the block."""
        former = self._substitute, self._unpublished
        self._substitute, self._unpublished = dispatcher, {}
        try:
            yield
        finally:
            self._substitute, self._unpublished = former

    def close(self) -> None:
        """Close every dispatcher."""
        for dispatcher in list(self._dispatchers.values()):
            try:
                dispatcher.close()
            except Exception:
                logger.exception("%r failed to close", dispatcher)

    def send(
        self,
        message: Message,
        within: Any,
        dispatcher: str | None,
        callbacks: Callbacks | None,
        *,
        at_once: bool = False,
    ) -> Receipt:
        """Publish a message, and wait if the dispatcher requires it.

        Never waits inside a running event loop, because it may wait for that loop.
        """
        receipt = Receipt(self._app, message)
        unit = self._unit(within)
        if at_once and not self._locked_by(unit):
            unit = IMMEDIATE
        waiting = self._hand_over(receipt, unit, dispatcher, callbacks)
        if waiting is not None:
            waiting.wait()
        return receipt

    async def asend(
        self,
        message: Message | Callable[[], Message],
        within: Any,
        dispatcher: str | None,
        callbacks: Callbacks | None,
    ) -> Receipt:
        """Publish a message, and await it if the dispatcher requires it."""
        unit = self._unit(within)
        if unit is IMMEDIATE and not isinstance(message, Message):
            message = message()

        def hand_over() -> tuple[Receipt, Waiting | None]:
            made = message if isinstance(message, Message) else message()
            receipt = Receipt(self._app, made)
            return receipt, self._hand_over(receipt, unit, dispatcher, callbacks)

        receipt, waiting = await self._run(unit, hand_over)
        if waiting is not None:
            await waiting.wait_async()
        return receipt

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function that uses the store, without blocking the caller's loop."""
        return await self._run(self._unsaid, function)

    async def _run(self, unit: UnitOfWork, function: Callable[[], T]) -> T:
        if unit is IMMEDIATE and self._app.store.blocking:
            return await asyncio.to_thread(function)
        return await unit.run(function)

    def _unit(self, within: Any) -> UnitOfWork:
        return self._unsaid if within is None else self._plugins.unit_of_work(within)

    def _locked_by(self, unit: UnitOfWork) -> bool:
        """Return whether only the open transaction can write to the store now; if so, log it."""
        store = self._app.store
        if not (isinstance(store, SingleWriter) and store.locked_by(unit)):
            return False
        if not self._warned_of_lock:
            self._warned_of_lock = True
            logger.warning(
                "signal_honors_transaction=False has no effect in a transaction on SQLite, which"
                " allows one writer at a time: events wait for the commit"
            )
        return True

    def _hand_over(
        self,
        receipt: Receipt,
        unit: UnitOfWork,
        dispatcher: str | None,
        callbacks: Callbacks | None,
    ) -> Waiting | None:
        if callbacks is not None:
            self._remember(receipt.message.id, callbacks)
        buffer = current_buffer()
        if buffer is not None and self._waits(buffer, unit):
            publish = partial(self._publish, unit=unit, name=dispatcher)
            run = partial(self._run, unit)
            if buffer.add((self, unit, dispatcher), publish, receipt, run):
                return None
        return self._publish([receipt], unit, dispatcher)

    def _waits(self, buffer: Buffer, unit: UnitOfWork) -> bool:
        """Return whether a message is buffered."""
        if isinstance(buffer, HeldEvents):
            return True
        # A transaction may end before the buffer, and its messages would be lost.
        if unit.open:
            return False
        if buffer.holds(blocking=self._app.store.blocking):
            return True
        if not self._warned_of_buffer:
            self._warned_of_buffer = True
            logger.warning(
                "with buffer_events() in a coroutine does not buffer messages from asend to %r,"
                " because its end can't be awaited; use: async with buffer_events()",
                self._app.store,
            )
        return False

    def _publish(
        self, receipts: Sequence[Receipt], unit: UnitOfWork, name: str | None
    ) -> Waiting | None:
        """Store messages in the unit of work, and notify the dispatcher when it commits.

        Returns:
            An object for the sender to wait for, if the transaction has committed already.
        """
        dispatcher, store = self.dispatcher(name), self._app.store
        by_id: dict[str, Message] = {}
        for receipt in receipts:
            by_id.setdefault(receipt.message.id, receipt.message)
        messages = list(by_id.values())
        keyed = [receipt for receipt in receipts if receipt.message.keyed]

        def written(present: Mapping[str, str]) -> None:
            for receipt in keyed:
                key = receipt.message.id
                earlier = present.get(key)
                if earlier is not None and key in self._callbacks:
                    self._remember(earlier, self._callbacks.pop(key))
                receipt.written(earlier)

        if dispatcher.publishes and keyed:
            store.publish(messages, within=unit, written=written)
        elif dispatcher.publishes:
            store.publish(messages, within=unit)
        if unit is IMMEDIATE:
            return self._committed(receipts, dispatcher)

        at_once: list[Waiting | None] = []
        publishing = True

        def committed() -> None:
            waiting = self._committed(receipts, dispatcher)
            if publishing:
                at_once.append(waiting)
            elif waiting is not None:
                waiting.wait()

        unit.on_commit(committed)
        publishing = False
        return at_once[0] if at_once else None

    def _committed(self, receipts: Sequence[Receipt], dispatcher: Dispatcher) -> Waiting | None:
        fresh = []
        for receipt in receipts:
            message = receipt.message
            if not dispatcher.publishes:
                first = self._first_unpublished(message)
                receipt.written(None if first is message else first.id)
            elif receipt.duplicate:
                first = self._app.store.message(message.id) or message
            else:
                first = message
            receipt.committed(first)
            if not receipt.duplicate:
                fresh.append(message)
        if not fresh:
            return None
        until = monotonic() + self._app.settings.inline_timeout
        future = dispatcher.dispatch(fresh)
        if signals.message_sent.receivers:
            for message in fresh:
                signals.tell(signals.message_sent, self._app, message=message)
        return None if future is None else Waiting(future, until)

    def _first_unpublished(self, message: Message) -> Message:
        """Return the first message with an idempotency key that a substitute withheld."""
        if self._substitute is None or message.idempotency is None:
            return message
        return self._unpublished.setdefault(message.idempotency, message)

    def _remember(self, message_id: str, callbacks: Callbacks) -> None:
        with self._lock:
            self._callbacks[message_id] = callbacks
            if len(self._callbacks) > CALLBACK_LIMIT:
                self._callbacks.popitem(last=False)

    def attempted(self, attempt: Attempt, delivery: Delivery) -> None:
        """Run the callbacks for an attempt; log their errors."""
        if not self._callbacks:
            return
        callbacks = self._callbacks.get(delivery.message_id)
        if callbacks is not None:
            try:
                with self._plugins.calling():
                    callbacks.call(attempt)
            except Exception:
                logger.exception("a callback of message %s failed", delivery.message_id)


class SendingCalls:
    """The part of an app that sends.

    Attributes:
        store: The app's store.
    """

    store: Store
    _sending: Sending

    def send(
        self, event: str | Event, data: Any = None, **options: Unpack[ModelSendArguments]
    ) -> Receipt:
        """Send a message of an event, declared or not.

        Args:
            event: The event or its name.
            data: The payload.
            **options: Options of `Event.send` or `ModelEvent.send`.

        Raises:
            InvalidNameError: The name is invalid.
            ConfigurationError: An option is unknown or not allowed.
            PayloadError: The payload can't be encoded, is too large, or violates the schema.
            StoreError: The store can't store it.
        """
        return self._event(event).send(data, **options)  # type: ignore[misc]  # the event checks

    async def asend(
        self, event: str | Event, data: Any = None, **options: Unpack[ModelSendArguments]
    ) -> Receipt:
        """Like `send`, without blocking the caller's event loop."""
        return await self._event(event).asend(data, **options)  # type: ignore[misc]

    def send_test(self, subscription_id: str) -> Receipt:
        """Send a `thorn.test` message to one subscription, and to no other.

        Raises:
            NotFoundError: It doesn't exist.
        """
        subscription = required(self.store, subscription_id)
        event = self._event("thorn.test")
        data = {"subscription": subscription.id, "events": subscription.events}
        message = event._compose(cast("App", self), event.name, data, SendOptions())
        return self.send_message(attrs.evolve(message, only=subscription.id))

    def _event(self, event: str | Event) -> Event:
        return event if isinstance(event, Event) else event_for(event, cast("App", self))

    def send_message(
        self,
        message: Message,
        *,
        within: Any = None,
        at_once: bool = False,
        dispatcher: str | None = None,
        callbacks: Callbacks | None = None,
    ) -> Receipt:
        """Send a complete message: to the open buffer, or to the store and the dispatcher.

        Args:
            message: The message.
            within: The transaction handle of an adapter.
            at_once: Don't wait for the commit of the transaction, if the database permits it.
            dispatcher: Name of a dispatcher, instead of the app's.
            callbacks: The callbacks for its attempts.

        Raises:
            StoreError: The store can't store it.
        """
        return self._sending.send(message, within, dispatcher, callbacks, at_once=at_once)

    async def asend_message(
        self,
        message: Message | Callable[[], Message],
        *,
        within: Any = None,
        dispatcher: str | None = None,
        callbacks: Callbacks | None = None,
    ) -> Receipt:
        """Like `send_message`, without blocking the caller's event loop.

        Args:
            message: The message, or a function that creates it inside the transaction.
            within: The transaction handle of an adapter.
            dispatcher: Name of a dispatcher, instead of the app's.
            callbacks: The callbacks for its attempts.

        Raises:
            StoreError: The store can't store it.
        """
        return await self._sending.asend(message, within, dispatcher, callbacks)


def required(store: Store, subscription_id: str) -> Subscription:
    """Return the subscription with an id.

    Raises:
        NotFoundError: It doesn't exist.
    """
    subscription = store.subscription(subscription_id)
    if subscription is None:
        raise NotFoundError(f"there is no subscription {subscription_id!r}")
    return subscription


class MessagesById(Sequence[Message]):
    """Messages in the store, loaded on access, because few dispatchers access them.

    Args:
        store: The store.
        ids: Their ids.
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
            raise NotFoundError(f"message {self._ids[index]!r} no longer exists")
        return message
