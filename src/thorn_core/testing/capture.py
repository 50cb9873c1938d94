"""Capture: collects messages instead of sending them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from thorn_core.app import Thorn, get_app
from thorn_core.patterns import matches
from thorn_core.values import Message


class CapturedMessages(list[Message]):
    """The messages sent while capturing, in order."""

    def of(self, pattern: str) -> list[Message]:
        """Return the messages of events that match a pattern."""
        return [message for message in self if matches(pattern, message.event)]


class _CapturingDispatcher:
    publishes = False

    def __init__(self, messages: CapturedMessages) -> None:
        self._messages = messages

    def dispatch(self, messages: Sequence[Message]) -> None:
        self._messages.extend(messages)

    def close(self) -> None:
        """Do nothing: capturing starts nothing."""


@contextlib.contextmanager
def capture(app: Thorn | None = None) -> Iterator[CapturedMessages]:
    """Collect messages instead of storing and dispatching them.

    Sending works as in production: it checks payloads, options and names. A message counts as sent
    when its transaction commits or its buffer ends. An idempotency key sends once.

    Args:
        app: The app; None is the default app.

    Raises:
        ConfigurationError: There is no app.

    Example:
        >>> from thorn_core import Thorn
        >>> with Thorn() as app, capture(app) as sent:
        ...     receipt = app.send("article.created", {"title": "Hello"})
        >>> [(message.event, message.payload) for message in sent]
        [('article.created', {'title': 'Hello'})]
    """
    captured = CapturedMessages()
    with (app or get_app()).dispatching_by(_CapturingDispatcher(captured)):
        yield captured
