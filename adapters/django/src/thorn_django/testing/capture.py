"""Capture: collects the messages that a project sends in a test, in any kind of transaction.

A message counts as sent when its transaction commits. The transaction of a `TestCase` (or of
pytest-django's `db` fixture) never commits, so Thorn ignores it, as `atomic(durable=True)` does.
Messages outside `atomic` are sent at once, and messages inside it at its end, unless it rolls back.
A `TransactionTestCase` has real transactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, overload
from weakref import WeakSet

from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import ConfigurationError, Message, Thorn, get_app, testing
from thorn_django.after_commit import pending_callbacks
from thorn_django.app import PREFIX

ANYTHING: Any = object()
SHOWN = 200


class CapturedMessages(Sequence[Message]):
    """The captured messages in order; more appear as they are sent."""

    def __init__(self) -> None:
        self._captured: list[testing.CapturedMessages] = []
        self._connections = connections.all()
        # Ignore callbacks and messages from before the capture.
        self._left = WeakSet(p for c in self._connections for p in pending_callbacks(c))

    def __len__(self) -> int:
        return len(self._messages())

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...

    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        return self._messages()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._messages() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [f"{m.event} {_short(m.payload)} sender={m.sender!r}" for m in self._messages()]
        return "\n".join([f"<{len(lines)} messages>", *lines])

    def of(
        self,
        pattern: str,
        *,
        payload: Any = ANYTHING,
        sender: Any = ANYTHING,
        ref: Any = ANYTHING,
    ) -> list[Message]:
        """Return messages whose event matches a pattern and that meet all other criteria.

        Args:
            pattern: A pattern as in subscriptions: `article.*`.
            payload: The decoded JSON: texts for times and Decimals.
            sender: The user or tenant, or its id; None for none.
            ref: The URL of the message's object.
        """
        if sender is not ANYTHING and sender is not None:
            sender = str(getattr(sender, "pk", sender))
        asked = {"payload": payload, "sender": sender, "ref": ref}
        return [
            message
            for message in testing.CapturedMessages(self._messages()).of(pattern)
            if all(v is ANYTHING or getattr(message, k) == v for k, v in asked.items())
        ]

    def clear(self) -> None:
        """Drop the messages captured so far."""
        self._messages()
        for captured in self._captured:
            captured.clear()

    def add(self, captured: testing.CapturedMessages) -> None:
        """Capture an app's messages from now on."""
        self._captured.append(captured)

    def _messages(self) -> list[Message]:
        # This thread's, in addition to those of the thread that started the capture.
        for connection in {id(c): c for c in (*self._connections, *connections.all())}.values():
            self._commit(connection)
        # Two connections with one alias may report the same callback.
        found = {message.id: message for captured in self._captured for message in captured}
        return list(found.values())

    def _commit(self, connection: BaseDatabaseWrapper) -> None:
        """Run callbacks that wait only for the test's own transaction."""
        blocks: list[Any] = connection.atomic_blocks
        if blocks and blocks[-1]._from_testcase:
            for pending in pending_callbacks(connection):
                if pending not in self._left:
                    self._left.add(pending)
                    pending.callback()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


@contextmanager
def capture(app: Thorn | None = None) -> Iterator[CapturedMessages]:
    """Collect messages instead of storing, dispatching and sending them.

    Args:
        app: The app; None is the default app, even if a test overrides a setting and so creates a
            new one.

    Raises:
        ConfigurationError: There is no app.

    Example:
        >>> from thorn_core import Event, Thorn
        >>> with Thorn() as app, capture(app) as sent:
        ...     receipt = Event("article.created", app=app).send({"title": "Hello"}, sender="7")
        >>> [message.payload for message in sent.of("article.*", sender="7")]
        [{'title': 'Hello'}]
    """
    captured = CapturedMessages()
    with ExitStack() as stack:
        captured.add(stack.enter_context(testing.capture(app)))

        def follow(*, setting: str, **_: Any) -> None:
            if app is None and (setting.startswith(PREFIX) or setting == "DATABASES"):
                # Without an app, events can't be sent.
                with suppress(ConfigurationError):
                    captured.add(stack.enter_context(testing.capture(get_app())))

        setting_changed.connect(follow)
        stack.callback(setting_changed.disconnect, follow)
        yield captured
