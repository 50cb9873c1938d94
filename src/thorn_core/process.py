"""An app's life in its process: closed at interpreter exit, begun anew in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import weakref
from typing import Any, Protocol

from thorn_core.values import begin_ids


class Process(Protocol):
    """What has to be told of exit and fork: an app."""

    def close(self) -> None:
        """Stop everything."""
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
    os.register_at_fork(after_in_child=_after_fork)
