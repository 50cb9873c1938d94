"""Looks names up as the operating system does, on threads of its own that no owner can use up.

`getaddrinfo` can't be cancelled: a name whose servers are silent keeps a thread busy for up to half
a minute. So each owner of subscriptions has a share of the threads, which shrinks as they get
scarce; what is beyond it waits, and owners take turns. asyncio's own pool has a handful of threads
for everybody, and uvloop's has four.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from time import monotonic
from typing import Any

from thorn_core.errors import TransportError

logger = logging.getLogger(__name__)

# Look-ups under way at once. A thread that waits costs little, but each holds a socket. It takes
# some sixty owners with silent names to use all of them.
THREADS = 128
# An owner may start a look-up while it has less than this part of the free threads, or none at all:
# seven for an owner alone, and one for everybody as long as there is a thread.
SHARE = 16
# Names of one owner, and of all, that wait for a thread.
OWNER_WAITING = 256
WAITING = 4096
# Seconds that good answers are kept: long enough for a burst of deliveries, short enough for a
# recipient that moves. Addresses are checked each time they are used, however they were found.
KEPT = 15.0
KEPT_NAMES = 4096

# The operator's look-ups together: less than so many times the free threads, three quarters of all.
OPERATOR_FACTOR = 3

Outcome = tuple[str, ...] | str
# Whose turn it is: an owner's; for the operator's subscriptions, each name's by itself.
Party = tuple[str | None, str | None]


class _Lookup:
    """A look-up of one owner's, and who waits for it."""

    __slots__ = ("host", "owner", "party", "port", "waiting")

    def __init__(self, host: str, port: int, owner: str | None) -> None:
        self.host, self.port, self.owner = host, port, owner
        self.party: Party = (owner, host if owner is None else None)
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[Outcome]]] = []


class Lookups:
    """Look-ups of a process; callable on any event loop.

    Args:
        threads: Look-ups under way at once.
        kept: Seconds that good answers are kept.
    """

    def __init__(self, *, threads: int = THREADS, kept: float = KEPT) -> None:
        self._threads = threads
        self._kept_seconds = kept
        self._lock = threading.Lock()
        self._running: Counter[Party] = Counter()
        self._total = self._operators = 0
        # By owner and name: one owner's are joined. Nobody waits in another one's queue.
        self._lookups: dict[tuple[str | None, str], _Lookup] = {}
        # By party, the one whose turn is next first.
        self._queues: OrderedDict[Party, deque[_Lookup]] = OrderedDict()
        self._waiting = 0
        self._kept: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    async def addresses(self, host: str, port: int, owner: str | None = None) -> Sequence[str]:
        """Look a name up.

        Args:
            host: The name, in ASCII.
            port: The port.
            owner: Whose share of the threads to use; None is the operator's.

        Raises:
            TransportError: The name has no address, there was no answer, or too many names wait.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._fresh(host)
            if kept is not None:
                return kept
            lookup = self._lookups.get((owner, host)) or self._enqueue(host, port, owner)
            future: asyncio.Future[Outcome] = loop.create_future()
            lookup.waiting.append((loop, future))
            ready = self._next()
        if ready is not None:
            self._start(ready)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._forsake(lookup, future)
            raise
        if isinstance(outcome, str):
            raise TransportError(outcome)
        return outcome

    def _fresh(self, host: str) -> tuple[str, ...] | None:
        kept = self._kept.get(host)
        return kept[1] if kept is not None and kept[0] > monotonic() else None

    def _enqueue(self, host: str, port: int, owner: str | None) -> _Lookup:
        lookup = _Lookup(host, port, owner)
        queue = self._queues.get(lookup.party, ())
        if len(queue) >= OWNER_WAITING or self._waiting >= WAITING:
            raise TransportError(
                f"The recipient's name {host!r} can't be resolved now: {len(queue)} other names of"
                f" the same owner are already waiting; check that their name servers respond."
            )
        self._lookups[owner, host] = lookup
        self._queues.setdefault(lookup.party, deque()).append(lookup)
        self._waiting += 1
        return lookup

    def _next(self) -> _Lookup | None:
        """Take the next look-up that may start out of its queue; parties take turns."""
        for party in list(self._queues):
            free = self._threads - self._total
            if free <= 0:
                return None
            if self._running[party] >= max(1, free // SHARE):
                continue
            if party[0] is None and self._operators >= max(1, OPERATOR_FACTOR * free):
                continue
            lookup = self._dequeue(party)
            if lookup is not None:
                self._count(lookup, 1)
                return lookup
        return None

    def _count(self, lookup: _Lookup, change: int) -> None:
        self._total += change
        self._operators += change if lookup.owner is None else 0
        self._running[lookup.party] += change
        if not self._running[lookup.party]:
            del self._running[lookup.party]

    def _dequeue(self, party: Party) -> _Lookup | None:
        queue = self._queues[party]
        lookup = None
        while queue and lookup is None:
            lookup = queue.popleft()
            self._waiting -= 1
            kept = self._fresh(lookup.host)
            if kept is not None:  # another owner's look-up was first
                self._deliver(lookup, kept)
                lookup = None
        if queue:
            self._queues.move_to_end(party)
        else:
            del self._queues[party]
        return lookup

    def _forsake(self, lookup: _Lookup, future: asyncio.Future[Outcome]) -> None:
        """Drop a look-up that waits for a thread, and that nobody waits for any more."""
        with self._lock:
            lookup.waiting = [one for one in lookup.waiting if one[1] is not future]
            queue = self._queues.get(lookup.party, ())
            if lookup.waiting or lookup not in queue:
                return
            del self._lookups[lookup.owner, lookup.host]
            self._waiting -= 1
            assert isinstance(queue, deque)
            queue.remove(lookup)
            if not queue:
                del self._queues[lookup.party]

    def _start(self, lookup: _Lookup) -> None:
        # Daemons: at interpreter exit, nothing waits for a silent server.
        thread = threading.Thread(
            target=self._work, args=(lookup,), name="thorn-lookup", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # At interpreter exit no thread can start, but the last messages aren't sent yet.
            self._work(lookup)

    def _work(self, lookup: _Lookup | None) -> None:
        while lookup is not None:
            outcome = _looked_up(lookup.host, lookup.port)
            with self._lock:
                if isinstance(outcome, tuple):
                    self._keep(lookup.host, outcome)
                self._count(lookup, -1)
                self._deliver(lookup, outcome)
                lookup = self._next()

    def _keep(self, host: str, addresses: tuple[str, ...]) -> None:
        self._kept[host] = (monotonic() + self._kept_seconds, addresses)
        self._kept.move_to_end(host)
        if len(self._kept) > KEPT_NAMES:
            self._kept.popitem(last=False)

    def _deliver(self, lookup: _Lookup, outcome: Outcome) -> None:
        del self._lookups[lookup.owner, lookup.host]
        for loop, future in lookup.waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _looked_up(host: str, port: int) -> Outcome:
    """The addresses in the order of preference (RFC 6724), or what went wrong."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except OSError as error:
        problem = (error.strerror or "the look-up failed").lower()
    except ValueError:
        problem = "it is not a host name"
    except Exception:
        logger.exception("a name can't be looked up")
        problem = "an internal error"
    else:
        addresses = tuple(dict.fromkeys(_with_zone(sockaddr) for _, _, _, _, sockaddr in found))
        if addresses:
            return addresses
        problem = "it has no address"
    return (
        f"The recipient's name {host!r} can't be resolved: {problem}; check its spelling and its"
        " DNS."
    )


def _with_zone(sockaddr: tuple[Any, ...]) -> str:
    text = str(sockaddr[0])
    zone = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{text}%{zone}" if zone and "%" not in text else text


_shared = Lookups()


async def system_resolver(host: str, port: int, owner: str | None = None) -> Sequence[str]:
    """Look a name up as the operating system does, for TCP, on the process's own threads.

    Args:
        host: The name, in ASCII.
        port: The port.
        owner: Whose share of the threads to use; None is the operator's.

    Returns:
        Addresses in the order of preference (RFC 6724), a zone id behind `%` where there is one.

    Raises:
        TransportError: The name has no address, there was no answer, or too many names wait.
    """
    return await _shared.addresses(host, port, owner)


def _after_fork() -> None:
    # The threads stay with the parent, and one of them may have held the lock.
    global _shared
    _shared = Lookups()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
