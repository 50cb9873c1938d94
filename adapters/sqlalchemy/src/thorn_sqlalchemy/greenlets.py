"""Asynchronous sessions: their greenlets run synchronous code on the thread of an event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def off_loop(function: Callable[[], T]) -> T:
    """Call a function that may block; on behalf of an asynchronous session, in a thread.

    The caller waits for it either way, the session's event loop doesn't.

    Args:
        function: Uses neither the session nor its connection.
    """
    if not in_async_session():
        return function()
    from sqlalchemy.util import await_only

    calling = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await_only(asyncio.shield(calling))
    except asyncio.CancelledError:
        if not calling.done():
            # The thread goes on, and is waited for: SQLAlchemy may be giving a connection back.
            return _cancelled_later(calling)
        raise


def _cancelled_later(calling: asyncio.Future[T]) -> T:
    """Wait for a call that goes on, and let its task be cancelled at its next wait."""
    from sqlalchemy.util import await_only

    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    try:
        return await_only(asyncio.shield(calling))
    finally:
        task.cancel()


def in_async_session() -> bool:
    """True in code that an AsyncSession or AsyncConnection runs."""
    # Its import needs greenlet, which isn't installed where nobody uses it.
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return False
    from greenlet import getcurrent  # type: ignore[import-untyped]

    return getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False)
