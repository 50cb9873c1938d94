"""An app's life cycle in its process: interpreter exit and forks."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import weakref
from typing import Any, Protocol

from thorn_core.keys import begin_ids

logger = logging.getLogger(__name__)


class Process(Protocol):
    """Anything that needs exit and fork notifications: an app."""

    def close(self) -> None:
        """Stop everything."""
        ...

    def before_fork(self) -> None:
        """Pause the app's own threads until `after_fork_in_parent`."""
        ...

    def after_fork_in_parent(self) -> None:
        """Resume the app's threads."""
        ...

    def after_fork(self) -> Any:
        """Reinitialise in a child; return inherited objects that must never be freed."""
        ...


_kept: weakref.WeakSet[Process] = weakref.WeakSet()
_registered = False


def keep(app: Process) -> None:
    """Close an app at exit, and make it usable after a fork.

    Args:
        app: The app; only a weak reference is kept.
    """
    global _registered
    _kept.add(app)
    if not _registered:
        _registered = True
        atexit.register(_close_all)


def _close_all() -> None:
    for app in list(_kept):
        with contextlib.suppress(Exception):
            app.close()


def _before_fork() -> None:
    """Keep our threads out of locks, imports and databases during the fork.

    A child inherits the locks of its parent's threads, but not the threads that would release them.
    If the parent is reading or writing a SQLite file at the fork, the child can never lock the
    file, or assumes that it holds a lock that it doesn't.
    """
    for app in list(_kept):
        try:
            app.before_fork()
        except Exception:
            logger.exception("%r could not be held for a fork", app)


def _after_fork_in_parent() -> None:
    for app in list(_kept):
        app.after_fork_in_parent()


def _after_fork() -> None:
    """Give each app in a forked child its own loop, locks and connections.

    The child shares its parent's epoll and sockets: freeing the inherited loop, transport or tasks
    here, even at exit, would break the parent's connections. So keep one reference to them that is
    never released.
    """
    begin_ids()
    for app in list(_kept):
        inherited = app.after_fork()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


# Needed even without an app, so that children that create apps don't generate the same ids.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )
