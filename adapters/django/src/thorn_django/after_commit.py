"""Thorn's own after-commit callbacks.

The list of `transaction.on_commit` belongs to the program, whose tests count and run its callbacks
(`captureOnCommitCallbacks`). Thorn has a second list for each connection, with the same rules: a
rollback, also of a savepoint, drops the callbacks registered since.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import attrs
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)
Callback = Callable[[], None]

ATTRIBUTE = "_thorn_after_commit"


def announces_commit(connection: BaseDatabaseWrapper) -> bool:
    """Return True inside `atomic`, unless autocommit is off: Django then reports no commits."""
    return connection.in_atomic_block and connection.commit_on_exit


def after_commit(connection: BaseDatabaseWrapper, callback: Callback) -> None:
    """Call a function right after the outermost `atomic` of a connection has committed.

    Callbacks run in order, before the program's own. Their exceptions are logged, because the
    transaction has already committed.

    Args:
        connection: A connection inside `atomic`.
        callback: Called once, never after a rollback.
    """
    pending = connection.__dict__.get(ATTRIBUTE)
    if pending is None:
        pending = connection.__dict__[ATTRIBUTE] = _Pending(connection)
    pending.callbacks.append(PendingCallback(frozenset(connection.savepoint_ids), callback))


@attrs.frozen(eq=False, weakref_slot=True)
class PendingCallback:
    """A callback that waits for a commit.

    Attributes:
        savepoints: The savepoints that were open when it was registered.
        callback: The callback.
    """

    savepoints: frozenset[Any]
    callback: Callback


def pending_callbacks(connection: BaseDatabaseWrapper) -> list[PendingCallback]:
    """Return the callbacks that wait for the commit of a connection's transaction."""
    pending = connection.__dict__.get(ATTRIBUTE)
    return [] if pending is None else list(pending.callbacks)


class _Pending:
    """The callbacks of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.callbacks: list[PendingCallback] = []
        self._before(connection, "run_and_clear_commit_hooks", self._run)
        self._before(connection, "rollback", self._clear)
        self._before(connection, "close", self._clear)
        self._before(connection, "savepoint_rollback", self._roll_back_to)

    @staticmethod
    def _before(connection: BaseDatabaseWrapper, name: str, act: Callable[..., None]) -> None:
        method = getattr(connection, name)

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            act(*args, **kwargs)
            return method(*args, **kwargs)

        setattr(connection, name, wrapped)

    def _run(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for pending in callbacks:
            try:
                pending.callback()
            except Exception:
                logger.exception("a Thorn callback failed after the commit")

    def _clear(self) -> None:
        self.callbacks = []

    def _roll_back_to(self, sid: Any) -> None:
        self.callbacks = [p for p in self.callbacks if sid not in p.savepoints]
