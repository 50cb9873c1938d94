"""Capture: see what a project sends in a test, whatever transaction the test runs in.

A message counts as sent when its transaction commits. That of a `TestCase` (or of the `db` fixture
of pytest-django) never does: it is taken as not being there, as `atomic(durable=True)` takes it. So
what is sent outside of `atomic` is sent at once, what is sent inside of it at its end, and what is
rolled back never. In a `TransactionTestCase` transactions are real ones.
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
    """The messages sent while capturing, in order; it grows as more are sent."""

    def __init__(self) -> None:
        self._captured: list[testing.CapturedMessages] = []
        self._connections = connections.all()
        # What waits already is others', and what has been done is done.
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
        """Those of events that match a pattern, and all else that is asked for.

        Args:
            pattern: As of a subscription: `article.*`.
            payload: What JSON gives back of it: texts for times and Decimals.
            sender: The user or tenant, or its id; None for none.
            ref: The URL of what it is about.
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
        """Forget what has been sent so far."""
        self._messages()
        for captured in self._captured:
            captured.clear()

    def add(self, captured: testing.CapturedMessages) -> None:
        """What an app sends from now on belongs to it."""
        self._captured.append(captured)

    def _messages(self) -> list[Message]:
        # Those of this thread too, beside those of the thread that began to capture.
        for connection in {id(c): c for c in (*self._connections, *connections.all())}.values():
            self._commit(connection)
        # Two connections of one alias may have told of the same.
        found = {message.id: message for captured in self._captured for message in captured}
        return list(found.values())

    def _commit(self, connection: BaseDatabaseWrapper) -> None:
        """Do what waits for nothing but a test's own transaction."""
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
    """Keep messages from the store, every dispatcher and the network, and collect them instead.

    Args:
        app: The app; None is the default one, also one that is made anew because a test overrides
            a setting.

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
                # Without an app nothing can be sent.
                with suppress(ConfigurationError):
                    captured.add(stack.enter_context(testing.capture(get_app())))

        setting_changed.connect(follow)
        stack.callback(setting_changed.disconnect, follow)
        yield captured
