"""Installing Thorn in a Celery app: its tasks, its beat schedule, and the end of its workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from celery import current_app
from celery.signals import beat_init, worker_init, worker_process_shutdown, worker_shutdown

from thorn_celery.options import options_of
from thorn_core import Thorn, ThornError, get_app

logger = logging.getLogger(__name__)

# The name of the app that Celery makes up where a program has none.
NOBODYS = "default"

Target = Thorn | Callable[[], Thorn] | None

_installed: WeakKeyDictionary[Any, Target] = WeakKeyDictionary()
# Apps that are at work in this process.
_used: WeakSet[Thorn] = WeakSet()


def install(celery: Any, thorn: Target = None) -> None:
    """Let a Celery app deliver webhooks: gives it the tasks and the beat schedule.

    Its configuration may hold `thorn_routes`, `thorn_retry_queue`, `thorn_sweep_interval` and
    `thorn_purge_after`; it is read when it is needed.

    Args:
        celery: The Celery app.
        thorn: Whose messages it delivers, or a function that gives it when a task or a send needs
            it; None is the app of the moment (`get_app`).

    Example:
        >>> from celery import Celery
        >>> celery = Celery("shop", broker="memory://")
        >>> install(celery)
        >>> sorted(celery.conf.beat_schedule)
        ['thorn.sweep']
        >>> "thorn.deliver" in celery.tasks
        True
    """
    _register_tasks()
    _installed[celery] = thorn
    celery.on_after_configure.connect(_schedule, weak=False, dispatch_uid="thorn")
    if celery.configured:
        _schedule(celery)


def _register_tasks() -> None:
    # They use what is in this room.
    from thorn_celery import tasks  # noqa: F401


def _schedule(sender: Any, **_: Any) -> None:
    """Add what beat sends, unless the configuration has it under the same name."""
    options = options_of(sender.conf)
    # Of sweeps that nobody came to do, one is enough.
    expiry = {"expires": options.sweep_interval}
    entries = {"thorn.sweep": (timedelta(seconds=options.sweep_interval), expiry)}
    if options.purge_after is not None:
        entries["thorn.purge"] = (timedelta(days=1), {})
    ours = {
        name: {"task": name, "schedule": every, "options": more}
        for name, (every, more) in entries.items()
    }
    sender.conf.beat_schedule = {**ours, **sender.conf.beat_schedule}


# -- who belongs together


def thorn_of(celery: Any) -> Thorn:
    """The app whose messages a Celery app delivers.

    Raises:
        ConfigurationError: There is none.
    """
    return _resolved(_installed.get(celery))


def celery_of(app: Thorn) -> Any:
    """The Celery app that was installed for an app, the latest of several; else the current one."""
    _register_tasks()
    for celery, target in reversed(list(_installed.items())):
        if _means(target, app):
            return celery
    celery = current_app._get_current_object()
    if celery.main == NOBODYS:
        logger.warning(
            "no Celery app is known in this process, so tasks go to Celery's default broker;"
            " import the module that calls thorn_celery.install"
        )
    return celery


def _resolved(target: Target) -> Thorn:
    if target is None:
        return get_app()
    return target if isinstance(target, Thorn) else target()


def _means(target: Target, app: Thorn) -> bool:
    try:
        return _resolved(target) is app
    except Exception:
        # As outside of the context of a web app that it belongs to.
        logger.debug("%r returns no app in this process", target, exc_info=True)
        return False


# -- the life of a worker


def _begins(sender: Any, **_: Any) -> None:
    """A worker or beat begins; it doesn't, with a configuration that isn't allowed.

    Celery keeps to itself what goes wrong when it is configured, and beat would send nothing.
    """
    if sender.app in _installed:
        try:
            options_of(sender.app.conf)
        except ThornError as error:
            raise SystemExit(str(error)) from error


def note_use(app: Thorn) -> None:
    """Remember that an app is at work in this process, so that it is ended with it."""
    _used.add(app)


def _child_ends(**_: Any) -> None:
    """A process of the prefork pool ends, without what an interpreter does at its exit."""
    for app in list(_used):
        app.close()


def _worker_ends(**_: Any) -> None:
    """A worker ends, its process perhaps not: let requests under way end, and leave the rest."""
    for app in list(_used):
        try:
            app.submit(app.engine.aclose()).result()
        except (ThornError, CancelledError):
            logger.debug("%r is already closed", app)


worker_init.connect(_begins, weak=False, dispatch_uid="thorn")
beat_init.connect(_begins, weak=False, dispatch_uid="thorn")
worker_process_shutdown.connect(_child_ends, weak=False, dispatch_uid="thorn")
worker_shutdown.connect(_worker_ends, weak=False, dispatch_uid="thorn")
