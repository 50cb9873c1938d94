"""Checks of callables from programs."""

from __future__ import annotations

import inspect
from typing import Any


def is_async(function: Any) -> bool:
    """Return whether calling an object returns an awaitable, which callers would not await.

    Example:
        >>> async def ask(url): ...
        >>> is_async(ask), is_async(print)
        (True, False)
    """
    calls = (function, getattr(function, "__call__", None))  # noqa: B004 - reads the method
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in calls)
