"""Thorn's plugin: the dispatcher, and queues in `thorn stats`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from thorn_core import Thorn, hookimpl

if TYPE_CHECKING:
    from thorn_celery.dispatcher import CeleryDispatcher


@hookimpl
def thorn_dispatchers() -> Mapping[str, Callable[[Thorn], CeleryDispatcher]]:
    """Return the dispatcher `celery`."""
    return {"celery": _dispatcher}


def _dispatcher(app: Thorn) -> CeleryDispatcher:
    # Imported lazily, for programs that don't use Celery; installation registers the tasks.
    from thorn_celery import installation  # noqa: F401
    from thorn_celery.dispatcher import CeleryDispatcher

    return CeleryDispatcher(app)


@hookimpl(trylast=True)
def thorn_cli(group: Any) -> None:
    """Let `thorn stats` show the number of waiting tasks in each queue."""
    from thorn_celery.cli import StatsWithQueues

    stats = group.commands.get("stats")
    if stats is not None and not isinstance(stats, StatsWithQueues):
        group.add_command(StatsWithQueues(stats))
