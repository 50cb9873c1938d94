"""Where the magazine's models are: in the database that a test is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_current = "default"


class Router:
    """Sends reads and writes without `using` to that database."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        instance = hints.get("instance")
        return (instance._state.db if instance is not None else None) or _current

    db_for_write = db_for_read


@contextmanager
def to(alias: str) -> Iterator[None]:
    """Use this database inside the block."""
    global _current
    former, _current = _current, alias
    try:
        yield
    finally:
        _current = former
