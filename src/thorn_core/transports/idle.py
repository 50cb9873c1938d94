"""Connections kept for the next request: bounded in number and in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from thorn_core.transports.descriptors import Party

# What a connection is opened for: scheme, name, port and validators. It is never used for another
# name, nor under other validators. These count by identity, which is fast and asks no hash of them;
# the connection holds them, so that it stays theirs.
Origin = tuple[str, str, int, int]


class Connection(Protocol):
    """What is kept."""

    origin: Origin
    party: Party
    validators: tuple[Any, ...]
    used: bool
    idle_since: float


C = TypeVar("C", bound=Connection)


class IdleConnections(Generic[C]):
    """Idle connections by origin, the one used last taken first; on one event loop.

    Args:
        most: How many to keep.
        timeout: Seconds to keep one.
        lost: Whether a connection was closed by the other side, or something arrived on it.
        close: Closes one.
    """

    def __init__(
        self,
        *,
        most: int,
        timeout: float,
        lost: Callable[[C], bool],
        close: Callable[[C], object],
    ) -> None:
        self._most = most
        self._timeout = timeout
        self._lost = lost
        self._close = close
        self._loop: asyncio.AbstractEventLoop | None = None
        self._by_origin: dict[Origin, list[C]] = {}
        self._all: OrderedDict[C, None] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def take(self, origin: Origin) -> C | None:
        """Take one out; None if there is none that is still good."""
        connections = self._by_origin.get(origin)
        while connections:
            connection = connections.pop()
            del self._all[connection]
            if not connections:
                del self._by_origin[origin]
            if not self._lost(connection):
                return connection
            self._close(connection)
        return None

    def put(self, connection: C) -> None:
        """Keep one; of too many, the one that has been idle for longest is closed."""
        if len(self._all) >= self._most:
            self._drop_oldest()
        connection.used, connection.idle_since = True, monotonic()
        self._all[connection] = None
        self._by_origin.setdefault(connection.origin, []).append(connection)
        if self._sweeper is None:
            self._loop = asyncio.get_running_loop()
            self._sweeper = self._loop.call_later(self._timeout, self._sweep)

    def give_way(self, party: Party | None) -> None:
        """Close the connection that has been idle for longest, soon; callable on any thread.

        Args:
            party: Whose it must be; None takes any.
        """
        loop = self._loop
        if loop is not None and self._all:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._drop_oldest, party)

    def close(self) -> None:
        """Close all of them."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._all:
            self._drop_oldest()

    def _drop_oldest(self, party: Party | None = None) -> None:
        for connection in self._all:
            if party is None or connection.party == party:
                self._drop(connection)
                return

    def _drop(self, connection: C) -> None:
        del self._all[connection]
        connections = self._by_origin[connection.origin]
        connections.remove(connection)
        if not connections:
            del self._by_origin[connection.origin]
        self._close(connection)

    def _sweep(self) -> None:
        """Close what has been idle for too long, and look again when the next will have been."""
        self._sweeper = None
        horizon = monotonic() - self._timeout
        while self._all:
            oldest = next(iter(self._all))
            if oldest.idle_since > horizon:
                wait = oldest.idle_since - horizon
                self._sweeper = asyncio.get_running_loop().call_later(wait, self._sweep)
                break
            self._drop(oldest)
