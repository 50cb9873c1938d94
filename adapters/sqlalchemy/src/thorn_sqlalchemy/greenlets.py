"""Asynchronous sessions: their greenlets run synchronous code in the event loop's thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def off_loop(function: Callable[[], T]) -> T:
    """Call a function that may block; for an asynchronous session, in a thread.

    The caller waits for the function, but the session's event loop doesn't.

    Args:
        function: A function that uses neither the session nor its connection.
    """
    if not in_async_session():
        return function()
    from sqlalchemy.util import await_only

    calling = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await_only(asyncio.shield(calling))
    except asyncio.CancelledError:
        if not calling.done():
            # Wait for the thread, which continues: SQLAlchemy may be returning a connection.
            return _cancelled_later(calling)
        raise


def _cancelled_later(calling: asyncio.Future[T]) -> T:
    """Wait for a call that continues; let its task be cancelled at its next wait."""
    from sqlalchemy.util import await_only

    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    try:
        return await_only(asyncio.shield(calling))
    finally:
        task.cancel()


def in_async_session() -> bool:
    """Return True in code that an AsyncSession or AsyncConnection runs."""
    # The import needs greenlet, which is installed only with asynchronous SQLAlchemy.
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return False
    from greenlet import getcurrent  # type: ignore[import-untyped]

    return getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False)
