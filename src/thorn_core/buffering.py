"""Buffers: collect messages and publish them together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from functools import partial
from time import monotonic
from typing import Any, Self

import attrs

from thorn_core.dispatchers.waiting import Waiting
from thorn_core.errors import BufferNotEmpty, ConfigurationError
from thorn_core.worker.thread import in_event_loop

# Maximum messages in a buffer before it is flushed, so that memory stays bounded.
BUFFER_LIMIT = 10_000

# Publishes messages with the same key; returns an object for the sender to wait for.
Publish = Callable[[Sequence[Any]], Any]
# Calls a function that may block, from async code.
Run = Callable[[Callable[[], Any]], Awaitable[Any]]

_current: ContextVar[Buffer | None] = ContextVar("thorn_buffer", default=None)


def current_buffer() -> Buffer | None:
    """Return the outermost buffer open in this context; None if none is open."""
    buffer = _current.get()
    return None if buffer is None or buffer.closed else buffer


@attrs.frozen
class _Entry:
    """A message in a buffer.

    Attributes:
        key: Messages with equal keys are published together.
        publish: Called with those messages at the flush.
        message: The message.
        run: Used by async code to call `publish`.
    """

    key: Any
    publish: Publish
    message: Any
    run: Run


class Buffer:
    """Messages to be published together.

    Safe to use from several threads and tasks. Tasks started inside the block share the buffer, as
    do threads that run in a copy of its context (`asyncio.to_thread` does); other threads don't.
    Messages they send after the end of the block are published immediately.

    Args:
        flush_freq: Number of messages from which `maybe_flush` flushes.
        flush_timeout: Seconds since the last flush after which `maybe_flush` flushes.

    Raises:
        ConfigurationError: `flush_freq` or `flush_timeout` isn't positive.
    """

    def __init__(
        self, *, flush_freq: int | None = None, flush_timeout: float | None = None
    ) -> None:
        for name, value in (("flush_freq", flush_freq), ("flush_timeout", flush_timeout)):
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} is {value!r}; use a positive number, or None")
        self.flush_freq = flush_freq
        self.flush_timeout = flush_timeout
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._closed = False
        self._flushed_at = monotonic()
        self._flushes = self._flushes_before = self._begin = 0
        self._outer: Buffer | None = None
        self._token: Token[Buffer | None] | None = None
        # True if the block's end awaits; otherwise the event loop's thread, which its end blocks.
        self._awaited = False
        self._loop_thread: int | None = None
        # Number of open blocks that may discard their messages.
        self._discarding = 0

    def __len__(self) -> int:
        return len(self._target._waiting)

    @property
    def _target(self) -> Buffer:
        return self if self._outer is None else self._outer

    @property
    def closed(self) -> bool:
        """True if it accepts no more messages."""
        return self._closed

    def open(self) -> Self:
        """Collect messages sent in this context, here or in the buffer already open around it."""
        self._outer = current_buffer()
        if self._outer is None:
            self._closed = False
            plain = not self._awaited and in_event_loop()
            self._loop_thread = threading.get_ident() if plain else None
        self._token = _current.set(self._target)
        self._begin, self._flushes_before = len(self._target._waiting), self._target._flushes
        return self

    def close(self) -> None:
        """Close a buffer opened by hand.

        Raises:
            BufferNotEmpty: It contains messages; flush or discard them first. It stays open.
        """
        if self._outer is None:
            with self._lock:
                if self._waiting:
                    raise BufferNotEmpty(
                        f"the buffer holds {len(self._waiting)} messages; flush() or discard()"
                        " them first"
                    )
                self._closed = True
        self._leave()

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            # A generator may end in another context than it began; a closed buffer is harmless.
            with contextlib.suppress(ValueError):
                _current.reset(token)

    def holds(self, *, blocking: bool) -> bool:
        """Return whether a message sent now should be buffered.

        A plain `with` in a coroutine can't await anything at its end. So if the store does I/O, it
        buffers only messages sent with `send` on the event loop's own thread, which blocks the loop
        anyway.

        Args:
            blocking: Whether publishing the message does I/O.

        Raises:
            ConfigurationError: It can't be buffered, but must be, because the block may discard it.
        """
        loop_thread = self._loop_thread
        if not blocking or loop_thread in (None, threading.get_ident()):
            return True
        if self._discarding:
            raise ConfigurationError(
                "with buffer_events(discard_on_error=True) can't buffer messages sent by asend;"
                " use: async with buffer_events(discard_on_error=True)"
            )
        return False

    def add(self, key: Any, publish: Publish, message: Any, run: Run = asyncio.to_thread) -> bool:
        """Add a message; messages with equal keys are published in one call.

        Args:
            key: Messages with equal keys are published together.
            publish: Called with those messages at the flush.
            message: The message.
            run: Used by async code to call `publish`.

        Returns:
            False if the buffer is closed; the message isn't added.
        """
        with self._lock:
            if self._closed:
                return False
            self._waiting.append(_Entry(key, publish, message, run))
            full = len(self._waiting) >= BUFFER_LIMIT
        if full:
            self._flush()
        return True

    def flush(self) -> int:
        """Publish all messages in the order they were sent, including those of nested buffers.

        Returns:
            The number of messages. If publishing raises, unpublished messages stay.

        Raises:
            ConfigurationError: It was opened with `async with`; await `aflush` instead.
            StoreError: The store can't store them.
        """
        if self._outer is not None:
            return self._outer.flush()
        if self._awaited and in_event_loop():
            raise ConfigurationError(
                "flush() would block the event loop; use: await buffer.aflush(), or"
                " await buffer.maybe_aflush()"
            )
        return self._flush()

    async def aflush(self) -> int:
        """Like `flush`, without blocking the event loop."""
        return await (self._aflush() if self._outer is None else self._outer.aflush())

    def _flush(self) -> int:
        waiting, published = self._take(), 0
        dispatched: list[Waiting] = []
        try:
            for group in _groups(waiting):
                dispatched += _some(group[0].publish([entry.message for entry in group]))
                published += len(group)
        finally:
            self._put_back(waiting[published:])
        for each in dispatched:
            each.wait()
        return published

    async def _aflush(self) -> int:
        waiting, published = self._take(), 0
        dispatched: list[Waiting] = []
        try:
            for group in _groups(waiting):
                publish = partial(group[0].publish, [entry.message for entry in group])
                dispatched += _some(await group[0].run(publish))
                published += len(group)
        finally:
            self._put_back(waiting[published:])
        for each in dispatched:
            await each.wait_async()
        return published

    def _take(self) -> list[_Entry]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._flushed_at = monotonic()
            self._flushes += 1
        return waiting

    def _put_back(self, entries: list[_Entry]) -> None:
        if entries:
            with self._lock:
                self._waiting[:0] = entries

    def maybe_flush(self) -> int:
        """Flush if `flush_freq` or `flush_timeout` is reached; return the number of messages."""
        return self.flush() if self._due else 0

    async def maybe_aflush(self) -> int:
        """Like `maybe_flush`, without blocking the event loop."""
        return await self.aflush() if self._due else 0

    @property
    def _due(self) -> bool:
        target = self._target
        return (self.flush_freq is not None and len(target._waiting) >= self.flush_freq) or (
            self.flush_timeout is not None
            and monotonic() - target._flushed_at >= self.flush_timeout
        )

    def discard(self) -> int:
        """Discard the messages; in a nested buffer, those sent since it was opened.

        Returns:
            The number of messages.
        """
        target = self._target
        with target._lock:
            begin = self._begin if self._flushes_before == target._flushes else 0
            count = len(target._waiting) - begin
            del target._waiting[begin:]
        return count

    # -- the end of a block

    def finish(self) -> None:
        """Close the buffer and publish its messages; a nested one leaves them to the outer one."""
        try:
            if self._shut():
                self._flush()
        finally:
            self._leave()

    async def afinish(self) -> None:
        """Like `finish`, without blocking the event loop; cancellation doesn't stop it."""
        try:
            if self._shut():
                flushing = asyncio.ensure_future(self._aflush())
                try:
                    await asyncio.shield(flushing)
                except asyncio.CancelledError:
                    await flushing
                    raise
        finally:
            self._leave()

    def _shut(self) -> bool:
        if self._outer is not None:
            return False
        with self._lock:
            self._closed = True
        return True


def _groups(waiting: list[_Entry]) -> list[list[_Entry]]:
    return [list(group) for _, group in itertools.groupby(waiting, key=lambda entry: entry.key)]


def _some(dispatched: Any) -> list[Waiting]:
    return [dispatched] if isinstance(dispatched, Waiting) else []


class HeldEvents(Buffer):
    """Defers messages until the change they announce is certain, for ORM adapters.

    The payload of a deletion must be created while the row exists, and sent only after it is
    deleted. Messages sent inside the block, which may be entered again, wait for `release()`.
    Messages that are never released are never sent.

    Example:
        >>> from thorn_core import Event, Thorn
        >>> app = Thorn(dispatcher="outbox")
        >>> removed, held = Event("article.removed", app=app), HeldEvents()
        >>> with held:
        ...     receipt = removed.send({"id": 1})
        >>> len(app.messages_to_route()), held.release(), len(app.messages_to_route())
        (0, 1, 1)
        >>> app.close()
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed = True

    def __enter__(self) -> Self:
        self._closed = False
        self._token = _current.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        # A task that outlives the block sends directly.
        with self._lock:
            self._closed = True
        self._leave()

    def add(self, key: Any, publish: Publish, message: Any, run: Run = asyncio.to_thread) -> bool:
        """Add a message, without a limit; return False outside of the block."""
        with self._lock:
            if not self._closed:
                self._waiting.append(_Entry(key, publish, message, run))
            return not self._closed

    def flush(self) -> int:
        """Publish nothing; `release` does that."""
        return 0

    async def aflush(self) -> int:
        """Publish nothing; `release` does that."""
        return 0

    def release(self) -> int:
        """Publish the deferred messages, or pass them to an enclosing `HeldEvents` block.

        An open buffer doesn't delay them, because their transaction may end before the buffer.

        Returns:
            The number of messages. If publishing raises, unpublished messages stay.
        """
        if not self._waiting:
            return 0
        around = current_buffer()
        if not isinstance(around, HeldEvents):
            return self._flush()
        waiting = self._take()
        with around._lock:
            around._waiting += waiting
        return len(waiting)


class buffer_events:  # noqa: N801 - used like a function
    """Buffer the messages sent inside the block, and publish them together at its end.

    In async code use `async with`, whose end doesn't block the event loop. A plain `with` in a
    coroutine can't await anything, so messages sent with `asend` to a database are published
    immediately. Nested blocks flush with the outermost one. After 10,000 messages a buffer
    flushes by itself.

    Args:
        flush_freq: Number of messages from which `buffer.maybe_flush()` flushes.
        flush_timeout: Seconds after which `buffer.maybe_flush()` flushes.
        discard_on_error: Discard the messages if the block raises, instead of publishing them.

    Raises:
        ConfigurationError: `flush_freq` or `flush_timeout` isn't positive.

    Example:
        >>> from thorn_core import Event, Thorn
        >>> app = Thorn(dispatcher="outbox")
        >>> imported = Event("article.imported", app=app)
        >>> with buffer_events(flush_freq=100) as buffer:
        ...     for number in range(3):
        ...         receipt = imported.send({"number": number})
        ...         sent = buffer.maybe_flush()
        ...     len(buffer)
        3
        >>> app.close()
    """

    def __init__(
        self,
        *,
        flush_freq: int | None = None,
        flush_timeout: float | None = None,
        discard_on_error: bool = False,
    ) -> None:
        self._buffer = Buffer(flush_freq=flush_freq, flush_timeout=flush_timeout)
        self._discards = discard_on_error

    def __enter__(self) -> Buffer:
        return self._begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(failed=kind is not None)
        self._buffer.finish()

    async def __aenter__(self) -> Buffer:
        self._buffer._awaited = True
        return self._begin()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(failed=kind is not None)
        await self._buffer.afinish()

    def _begin(self) -> Buffer:
        buffer = self._buffer.open()
        buffer._target._discarding += self._discards
        return buffer

    def _end(self, *, failed: bool) -> None:
        self._buffer._target._discarding -= self._discards
        if failed and self._discards:
            self._buffer.discard()
