"""The tasks: `thorn.deliver`, `thorn.sweep` and `thorn.purge`, in every Celery app."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from thorn_celery import work
from thorn_celery.hints import DELIVER
from thorn_celery.options import options_of
from thorn_celery.registry import note_use, thorn_of
from thorn_core import Thorn


def deliver(self: Any, message_ids: list[str], *, again: bool = False) -> None:
    """Route these messages and start their due requests, for a limited time."""
    work.deliver(_app(self), message_ids, again=again)


def sweep(self: Any) -> int:
    """Enqueue tasks for due work: retries, lost tasks, and expired leases."""
    return work.sweep(_app(self))


def purge(self: Any) -> int:
    """Delete old finished deliveries, if an age is configured."""
    return work.purge(_app(self), options_of(self.app.conf).purge_after)


def _app(task: Any) -> Thorn:
    app = thorn_of(task.app)
    note_use(app)
    return app


# Acknowledged at the end, so that another worker gets a dead worker's tasks. Results aren't used.
_shared = {"bind": True, "acks_late": True, "ignore_result": True}
shared_task(name=DELIVER, **_shared)(deliver)
shared_task(name="thorn.sweep", **_shared)(sweep)
shared_task(name="thorn.purge", **_shared)(purge)
