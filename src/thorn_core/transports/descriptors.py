"""How many connections a process may have open: those of all its transports, counted in one place.

A connection is a file descriptor, and a process that runs out of them fails everywhere at once:
it can't open its database or accept a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from typing import Protocol

# The part of the process's descriptors that connections may take.
SHARE = 4
# Where the system tells no limit.
ASSUMED = 1024


class Pool(Protocol):
    """Has idle connections that it can do without."""

    def give_way(self) -> None:
        """Close one idle connection soon, if there is one; may be called on any thread."""
        ...


def most_connections() -> int:
    """A quarter of the soft limit of descriptors (RLIMIT_NOFILE), at least one."""
    if sys.platform == "win32":
        return ASSUMED // SHARE
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (ASSUMED if soft == resource.RLIM_INFINITY else soft) // SHARE)


class Descriptors:
    """Counts connections from before they are opened until they are closed; on any thread."""

    def __init__(self) -> None:
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._taken = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def take(self) -> Descriptor:
        """Take one; wait, first come first served, while there is none.

        Pools with idle connections are asked to close one each.
        """
        with self._lock:
            if self._taken < most_connections():
                self._taken += 1
                return Descriptor(self)
            loop = asyncio.get_running_loop()
            turn = loop.create_future()
            self._waiting.append((loop, turn))
            pools = list(self.pools)
        for pool in pools:
            pool.give_way()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()
            raise
        return Descriptor(self)

    @property
    def scarce(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting)

    def give(self) -> None:
        """Give one back: to whoever waits the longest, if anybody does."""
        with self._lock:
            while self._waiting:
                loop, turn = self._waiting.popleft()
                # A cancelled future passes it on; a closed loop raises.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._hand, turn)
                    return
            self._taken -= 1

    def _hand(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.give()
        else:
            turn.set_result(None)


class Descriptor:
    """One that was taken."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Descriptors) -> None:
        self._owner: Descriptors | None = owner

    def give(self) -> None:
        """Give it back; calling it twice is fine."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.give()


_shared = Descriptors()


def descriptors() -> Descriptors:
    """The process's own count."""
    return _shared


def _after_fork() -> None:
    # The child closes none of the connections it inherited, and opens its own.
    global _shared
    _shared = Descriptors()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
