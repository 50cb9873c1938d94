"""Thorn on Celery: a dispatcher, tasks that deliver, and a beat schedule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thorn_celery.dispatcher import CeleryDispatcher
    from thorn_celery.installation import install

__version__ = "2.0.0"

__all__ = ["CeleryDispatcher", "install"]

_ROOMS = {"CeleryDispatcher": "dispatcher", "install": "installation"}


def __getattr__(name: str) -> Any:
    # Imported lazily, because the entry point makes every program import this package.
    if name in _ROOMS:
        import_module(f"{__name__}.installation")  # registers the tasks
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
