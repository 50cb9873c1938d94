"""An app's life in its process: closed at interpreter exit, held at a fork, new in its child."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import weakref
from typing import Any, Protocol

from thorn_core.values import begin_ids

logger = logging.getLogger(__name__)


class Process(Protocol):
    """Anything that needs exit and fork notifications: an app."""

    def close(self) -> None:
        """Stop everything."""
        ...

    def before_fork(self) -> None:
        """Hold the app's own threads until `after_fork_in_parent`."""
        ...

    def after_fork_in_parent(self) -> None:
        """Let them go on."""
        ...

    def after_fork(self) -> Any:
        """Begin anew in a child; returns what it inherited and mustn't touch."""
        ...


_kept: weakref.WeakSet[Process] = weakref.WeakSet()
_registered = False


def keep(app: Process) -> None:
    """See to it that an app is closed at exit and usable after a fork.

    Args:
        app: The app; only weakly referred to.
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
    """Let no thread of ours be inside a lock, an import or a database at the moment of the fork.

    The child inherits the locks of its parent's threads, but not the threads that release them. The
    worst are those of SQLite: a child that is forked while its parent reads or writes a file is
    locked out of it for ever, or believes that it holds a lock that it doesn't.
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
    """Give each app of a forked child a loop, locks and connections of its own.

    The child shares its parent's epoll and sockets: were the inherited loop, transport or tasks
    ever freed here, even at exit, they would take the parent's connections with them. So they get
    one reference that is never given back.
    """
    begin_ids()
    for app in list(_kept):
        inherited = app.after_fork()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


# Even if there is no app yet: children that make theirs must not count ids on alike.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )
