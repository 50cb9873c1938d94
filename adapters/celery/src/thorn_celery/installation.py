"""Installation of Thorn in a Celery app: tasks, beat schedule, and worker shutdown."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError
from datetime import timedelta
from typing import Any

from celery.signals import beat_init, worker_init, worker_process_shutdown, worker_shutdown

from thorn_celery import tasks  # noqa: F401 - registers the tasks in every Celery app
from thorn_celery.options import options_of
from thorn_celery.registry import Target, apps_in_use, is_registered, register
from thorn_core import ThornError

logger = logging.getLogger(__name__)


def install(celery: Any, thorn: Target = None) -> None:
    """Let a Celery app deliver webhooks: add the tasks and the beat schedule.

    Its configuration may contain `thorn_routes`, `thorn_retry_queue`, `thorn_sweep_interval` and
    `thorn_purge_after`; it is read when needed.

    Args:
        celery: The Celery app.
        thorn: The app whose messages it delivers, or a function that returns it when a task or a
            send needs it; None uses the current app (`get_app`).

    Example:
        >>> from celery import Celery
        >>> celery = Celery("shop", broker="memory://")
        >>> install(celery)
        >>> sorted(celery.conf.beat_schedule)
        ['thorn.sweep']
        >>> "thorn.deliver" in celery.tasks
        True
    """
    register(celery, thorn)
    celery.on_after_configure.connect(_schedule, weak=False, dispatch_uid="thorn")
    if celery.configured:
        _schedule(celery)


def _schedule(sender: Any, **_: Any) -> None:
    """Add entries to the beat schedule, unless the configuration has the same names."""
    options = options_of(sender.conf)
    # Waiting sweeps expire, so that they don't pile up.
    expiry = {"expires": options.sweep_interval}
    entries = {"thorn.sweep": (timedelta(seconds=options.sweep_interval), expiry)}
    if options.purge_after is not None:
        entries["thorn.purge"] = (timedelta(days=1), {})
    ours = {
        name: {"task": name, "schedule": every, "options": more}
        for name, (every, more) in entries.items()
    }
    sender.conf.beat_schedule = {**ours, **sender.conf.beat_schedule}


# -- a worker's life cycle


def _begins(sender: Any, **_: Any) -> None:
    """Stop a starting worker or beat if its configuration is invalid.

    Celery hides errors of its configuration, and beat would send nothing.
    """
    if is_registered(sender.app):
        try:
            options_of(sender.app.conf)
        except ThornError as error:
            raise SystemExit(str(error)) from error


def _child_ends(**_: Any) -> None:
    """Close apps in a prefork process, which ends without interpreter exit handlers."""
    for app in apps_in_use():
        app.close()


def _worker_ends(**_: Any) -> None:
    """Let requests in flight finish when a worker stops; its process may continue."""
    for app in apps_in_use():
        try:
            app.submit(app.engine.aclose()).result()
        except (ThornError, CancelledError):
            logger.debug("%r is already closed", app)


worker_init.connect(_begins, weak=False, dispatch_uid="thorn")
beat_init.connect(_begins, weak=False, dispatch_uid="thorn")
worker_process_shutdown.connect(_child_ends, weak=False, dispatch_uid="thorn")
worker_shutdown.connect(_worker_ends, weak=False, dispatch_uid="thorn")
