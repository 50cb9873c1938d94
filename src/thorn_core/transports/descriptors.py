"""How many connections a process may have open: those of all its transports, counted in one place.

A connection is a file descriptor, and a process that runs out of them fails everywhere at once:
it can't open its database or accept a request.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections import Counter, OrderedDict, deque
from typing import Protocol

# The part of the process's descriptors that connections may take.
SHARE = 4
# Where the system tells no limit.
ASSUMED = 1024


# What a party may have open: less than so many times what is free. One alone gets three quarters,
# and there is always something left for the next, however many connections hang.
FACTOR = 3

# Who opens a connection: an owner; for the operator's subscriptions, each recipient by itself.
Party = tuple[str | None, str | None]


class Pool(Protocol):
    """Has idle connections that it can do without."""

    def give_way(self, party: Party | None) -> None:
        """Close one idle connection soon; may be called on any thread.

        Args:
            party: Whose it must be; None takes any.
        """
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
        self._held: Counter[Party] = Counter()
        # By party, the one whose turn is next first.
        self._waiting: OrderedDict[Party, deque[_Waiter]] = OrderedDict()

    async def take(self, party: Party) -> Descriptor:
        """Take one; wait while there is none for this party. Parties take turns.

        Pools with idle connections are asked to close one each.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if party not in self._waiting and self._has_room(party):
                return self._hold(party)
            waiter: _Waiter = (loop, loop.create_future())
            self._waiting.setdefault(party, deque()).append(waiter)
            full = self._taken >= most_connections()
            pools = list(self.pools)
        for pool in pools:
            pool.give_way(None if full else party)
        try:
            return await waiter[1]
        except asyncio.CancelledError:
            self._forsake(party, waiter)
            raise

    @property
    def scarce(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting)

    def give(self, party: Party) -> None:
        """Take one back, and hand on what is free."""
        with self._lock:
            self._taken -= 1
            self._held[party] -= 1
            if not self._held[party]:
                del self._held[party]
            granted = self._grant()
        for (loop, turn), descriptor in granted:
            try:
                loop.call_soon_threadsafe(_settle, turn, descriptor)
            except RuntimeError:  # the loop is closed
                descriptor.give()

    def _has_room(self, party: Party) -> bool:
        free = most_connections() - self._taken
        return free > 0 and self._held[party] < max(1, FACTOR * free)

    def _hold(self, party: Party) -> Descriptor:
        self._taken += 1
        self._held[party] += 1
        return Descriptor(self, party)

    def _grant(self) -> list[tuple[_Waiter, Descriptor]]:
        granted = []
        for party in list(self._waiting):
            if self._has_room(party):
                queue = self._waiting.pop(party)
                granted.append((queue.popleft(), self._hold(party)))
                if queue:
                    self._waiting[party] = queue  # at the end
        return granted

    def _forsake(self, party: Party, waiter: _Waiter) -> None:
        turn = waiter[1]
        if turn.done() and not turn.cancelled():
            turn.result().give()
        with self._lock:
            queue = self._waiting.get(party, ())
            if waiter in queue:
                assert isinstance(queue, deque)
                queue.remove(waiter)
                if not queue:
                    del self._waiting[party]


class Descriptor:
    """One that was taken."""

    __slots__ = ("_owner", "party")

    def __init__(self, owner: Descriptors, party: Party) -> None:
        self._owner: Descriptors | None = owner
        self.party = party

    def give(self) -> None:
        """Give it back; calling it twice is fine."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.give(self.party)


_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Descriptor]"]


def _settle(turn: asyncio.Future[Descriptor], descriptor: Descriptor) -> None:
    if turn.done():
        descriptor.give()
    else:
        turn.set_result(descriptor)


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
