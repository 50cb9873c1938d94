"""The tasks: `thorn.deliver`, `thorn.sweep` and `thorn.purge`, in every Celery app."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from thorn_celery import work
from thorn_celery.hints import DELIVER
from thorn_celery.installation import note_use, thorn_of
from thorn_celery.options import options_of
from thorn_core import Thorn


def deliver(self: Any, message_ids: list[str], *, again: bool = False) -> None:
    """Route these messages and begin the requests that are due for them, for a bounded time."""
    work.deliver(_app(self), message_ids, again=again)


def sweep(self: Any) -> int:
    """Tell workers of what is due and nobody is at: retries, lost tasks, leases of the dead."""
    return work.sweep(_app(self))


def purge(self: Any) -> int:
    """Remove old settled deliveries, if the configuration says from which age on."""
    return work.purge(_app(self), options_of(self.app.conf).purge_after)


def _app(task: Any) -> Thorn:
    app = thorn_of(task.app)
    note_use(app)
    return app


# Acknowledged when done: what a worker that dies had is told to another. Nobody reads the results.
_shared = {"bind": True, "acks_late": True, "ignore_result": True}
shared_task(name=DELIVER, **_shared)(deliver)
shared_task(name="thorn.sweep", **_shared)(sweep)
shared_task(name="thorn.purge", **_shared)(purge)
