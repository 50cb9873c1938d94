"""Callables that programs give."""

from __future__ import annotations

import inspect
from typing import Any


def is_async(function: Any) -> bool:
    """True for what gives something to await when it is called, which nobody here would.

    Example:
        >>> async def ask(url): ...
        >>> is_async(ask), is_async(print)
        (True, False)
    """
    calls = (function, getattr(function, "__call__", None))  # noqa: B004 - an object's method
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in calls)
