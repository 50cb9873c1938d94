"""Buffers: messages wait, and are published together."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any, Self

from thorn_core.errors import BufferNotEmpty, ConfigurationError
from thorn_core.values import Message

# Messages that wait in one buffer at most; then it is flushed, so that memory stays bounded.
BUFFER_LIMIT = 10_000

Publish = Callable[[Sequence[Message]], object]

_current: ContextVar[Buffer | None] = ContextVar("thorn_buffer", default=None)


def current_buffer() -> Buffer | None:
    """The outermost buffer open in this context, where messages wait; None if none is open."""
    return _current.get()


class Buffer:
    """Messages that wait to be published together.

    Safe to use from several threads and tasks. Tasks started inside the block share the buffer, as
    do threads that run in a copy of its context (`asyncio.to_thread` does); other threads don't.

    Args:
        flush_freq: `maybe_flush` flushes from so many messages on.
        flush_timeout: `maybe_flush` flushes when so many seconds have gone by since the last flush.

    Raises:
        ConfigurationError: One of them isn't positive.
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
        self._waiting: list[tuple[Any, Publish, Message]] = []
        self._flushed_at = monotonic()
        self._flushes = self._flushes_before = self._begin = 0
        self._outer: Buffer | None = None
        self._token: Token[Buffer | None] | None = None

    def __len__(self) -> int:
        return len(self._target._waiting)

    @property
    def _target(self) -> Buffer:
        return self if self._outer is None else self._outer

    def open(self) -> Self:
        """Let messages sent in this context wait here, or in the buffer already open around it."""
        self._outer = _current.get()
        self._token = _current.set(self._target)
        self._begin, self._flushes_before = len(self._target._waiting), self._target._flushes
        return self

    def close(self) -> None:
        """Close a buffer opened by hand.

        Raises:
            BufferNotEmpty: It holds messages; flush or discard them first. It stays open.
        """
        if self._outer is None and self._waiting:
            raise BufferNotEmpty(
                f"the buffer holds {len(self._waiting)} messages; flush() or discard() them first"
            )
        self._leave()

    def _leave(self) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def add(self, key: Any, publish: Publish, message: Message) -> None:
        """Keep a message; those added with an equal key are published in one call.

        Args:
            key: What messages must share to be published together.
            publish: Called with those messages at the flush.
            message: The message.
        """
        with self._lock:
            self._waiting.append((key, publish, message))
            full = len(self._waiting) >= BUFFER_LIMIT
        if full:
            self.flush()

    def flush(self) -> int:
        """Publish everything that waits, in the order it was sent; a nested buffer's too.

        Returns:
            How many messages there were. If publishing raises, those not yet published stay.
        """
        if self._outer is not None:
            return self._outer.flush()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._flushed_at = monotonic()
            self._flushes += 1
        published = 0
        try:
            for _, entries in itertools.groupby(waiting, key=lambda entry: entry[0]):
                group = list(entries)
                group[0][1]([message for _, _, message in group])
                published += len(group)
        finally:
            if published < len(waiting):
                with self._lock:
                    self._waiting[:0] = waiting[published:]
        return published

    def maybe_flush(self) -> int:
        """Flush if `flush_freq` or `flush_timeout` says so; returns how many messages went."""
        target = self._target
        due = (self.flush_freq is not None and len(target._waiting) >= self.flush_freq) or (
            self.flush_timeout is not None
            and monotonic() - target._flushed_at >= self.flush_timeout
        )
        return self.flush() if due else 0

    def discard(self) -> int:
        """Forget what waits, of a nested buffer what was sent since it was opened.

        Returns:
            How many messages that were.
        """
        target = self._target
        with target._lock:
            begin = self._begin if self._flushes_before == target._flushes else 0
            count = len(target._waiting) - begin
            del target._waiting[begin:]
        return count


class HeldEvents(Buffer):
    """Holds messages back until it is certain that what they tell of happens, for ORM adapters.

    The payload of a deletion has to be made while the row is there, and may be sent only once it
    has gone. What is sent inside the block, which may be entered again, waits for `release()`. What
    is never released is never sent.

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

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def add(self, key: Any, publish: Publish, message: Message) -> None:
        """Keep a message, however many there are."""
        with self._lock:
            self._waiting.append((key, publish, message))

    def flush(self) -> int:
        """Publish nothing: that is for `release`."""
        return 0

    def release(self) -> int:
        """Publish what is held, or let other `HeldEvents` hold it whose block this is in.

        A buffer that is open doesn't keep it back: the transaction that it belongs to may end
        before that does.

        Returns:
            How many messages that were. If publishing raises, those not yet published stay.
        """
        if not self._waiting:
            return 0
        around = current_buffer()
        if not isinstance(around, HeldEvents):
            return super().flush()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for entry in waiting:
            around.add(*entry)
        return len(waiting)


@contextlib.contextmanager
def buffer_events(
    *,
    flush_freq: int | None = None,
    flush_timeout: float | None = None,
    discard_on_error: bool = False,
) -> Iterator[Buffer]:
    """Let the messages sent inside the block wait, and publish them together at its end.

    A nested block's messages go with the outermost one. After 10,000 messages a buffer flushes by
    itself.

    Args:
        flush_freq: `buffer.maybe_flush()` flushes from so many messages on.
        flush_timeout: `buffer.maybe_flush()` flushes after so many seconds.
        discard_on_error: Forget what waits if the block raises; else it is published even then.

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
    buffer = Buffer(flush_freq=flush_freq, flush_timeout=flush_timeout).open()
    try:
        yield buffer
    except BaseException:
        if discard_on_error:
            buffer.discard()
        raise
    finally:
        try:
            if buffer._outer is None:
                buffer.flush()
        finally:
            buffer._leave()
