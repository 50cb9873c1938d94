"""Replays: remembering handled webhooks."""

from __future__ import annotations

import hashlib
import heapq
import math
import threading
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

# About 30 MB.
REPLAY_LIMIT = 100_000


class Seen(Enum):
    """The state of a webhook."""

    NEW = "new"
    UNDER_WAY = "under way"
    HANDLED = "handled"


class ReplayGuard(Protocol):
    """Remembers webhooks; processes that share a guard act as one.

    A webhook is begun, and then either finished, or forgotten so that a retry can begin it again.
    """

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Mark a new webhook as being handled; return its previous state.

        If several begin the same webhook at once, it is new to exactly one of them.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When it may begin again, if it is neither finished nor forgotten.
        """
        ...

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Mark a webhook as handled.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When it may be forgotten.
        """
        ...

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        ...


class MemoryReplayGuard:
    """A ReplayGuard for one process.

    Args:
        limit: Maximum number of keys; those that expire first are evicted.
    """

    def __init__(self, *, limit: int = REPLAY_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[str, tuple[datetime, Seen]] = {}
        self._by_time: list[tuple[datetime, str]] = []

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Mark a new webhook as being handled; return its previous state."""
        with self._lock:
            while self._by_time and self._by_time[0][0] <= now:
                self._drop_first()
            if key in self._known:
                return self._known[key][1]
            self._note(key, until, Seen.UNDER_WAY)
            return Seen.NEW

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Mark a webhook as handled."""
        with self._lock:
            self._note(key, until, Seen.HANDLED)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        with self._lock:
            self._known.pop(key, None)

    def _note(self, key: str, until: datetime, seen: Seen) -> None:
        self._known[key] = until, seen
        heapq.heappush(self._by_time, (until, key))
        # Includes entries that were renewed or forgotten later.
        while len(self._by_time) > self._limit:
            self._drop_first()

    def _drop_first(self) -> None:
        until, key = heapq.heappop(self._by_time)
        if key in self._known and self._known[key][0] == until:
            del self._known[key]


class Cache(Protocol):
    """The cache methods that CacheReplayGuard needs; Django's and Flask-Caching's have them."""

    def add(self, key: str, value: str, timeout: int) -> Any:
        """Store a value for some seconds unless there is one; return a true value if stored."""
        ...

    def get(self, key: str) -> Any:
        """Return the value, or None."""
        ...

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Store a value for some seconds."""
        ...

    def delete(self, key: str) -> Any:
        """Delete the value."""
        ...


class CacheReplayGuard:
    """A ReplayGuard in a cache, for all processes that share it.

    Its `add` admits one of several concurrent duplicates. A cache that evicts entries
    forgets early.

    Args:
        cache: The cache.
        prefix: The prefix of its keys.
    """

    def __init__(self, cache: Cache, *, prefix: str = "thorn.webhook.") -> None:
        self._cache = cache
        self._prefix = prefix

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Mark a new webhook as being handled; return its previous state."""
        name = self._name(key)
        if self._cache.add(name, Seen.UNDER_WAY.value, timeout=_whole_seconds(now, until)):
            return Seen.NEW
        # An entry that expired meanwhile can begin at its next arrival.
        handled = self._cache.get(name) == Seen.HANDLED.value
        return Seen.HANDLED if handled else Seen.UNDER_WAY

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Mark a webhook as handled."""
        seconds = _whole_seconds(now, until)
        self._cache.set(self._name(key), Seen.HANDLED.value, timeout=seconds)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        self._cache.delete(self._name(key))

    def _name(self, key: str) -> str:
        """Return a key that every cache accepts, for any id."""
        return self._prefix + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _whole_seconds(now: datetime, until: datetime) -> int:
    return math.ceil((until - now).total_seconds())
