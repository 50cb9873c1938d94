"""Replays: which webhooks have been here."""

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
    """Whether a webhook has been here."""

    NEW = "new"
    UNDER_WAY = "under way"
    HANDLED = "handled"


class ReplayGuard(Protocol):
    """Remembers which webhooks have been here; what several processes share makes them one.

    A webhook is begun, and then either finished, or forgotten so that a retry may begin it again.
    """

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was.

        Of several that begin the same at once, one is told that it is new.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When it may be begun again, if it is neither finished nor forgotten.
        """
        ...

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When that may be forgotten.
        """
        ...

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        ...


class MemoryReplayGuard:
    """A ReplayGuard for one process.

    Args:
        limit: Keys to remember; of more, those that may be forgotten soonest are.
    """

    def __init__(self, *, limit: int = REPLAY_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[str, tuple[datetime, Seen]] = {}
        self._by_time: list[tuple[datetime, str]] = []

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was."""
        with self._lock:
            while self._by_time and self._by_time[0][0] <= now:
                self._drop_first()
            if key in self._known:
                return self._known[key][1]
            self._note(key, until, Seen.UNDER_WAY)
            return Seen.NEW

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled."""
        with self._lock:
            self._note(key, until, Seen.HANDLED)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        with self._lock:
            self._known.pop(key, None)

    def _note(self, key: str, until: datetime, seen: Seen) -> None:
        self._known[key] = until, seen
        heapq.heappush(self._by_time, (until, key))
        # Counting too what has been noted anew or forgotten since.
        while len(self._by_time) > self._limit:
            self._drop_first()

    def _drop_first(self) -> None:
        until, key = heapq.heappop(self._by_time)
        if key in self._known and self._known[key][0] == until:
            del self._known[key]


class Cache(Protocol):
    """What a CacheReplayGuard needs of a cache: those of Django and of Flask-Caching have it."""

    def add(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for some seconds unless there is one; truthy if it was kept."""
        ...

    def get(self, key: str) -> Any:
        """The value that is kept, or None."""
        ...

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for some seconds."""
        ...

    def delete(self, key: str) -> Any:
        """Keep it no longer."""
        ...


class CacheReplayGuard:
    """A ReplayGuard in a cache, for all processes that share it.

    Its `add` lets one of several in that begin the same at once. A cache that drops entries forgets
    early.

    Args:
        cache: The cache.
        prefix: What its keys begin with.
    """

    def __init__(self, cache: Cache, *, prefix: str = "thorn.webhook.") -> None:
        self._cache = cache
        self._prefix = prefix

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was."""
        name = self._name(key)
        if self._cache.add(name, Seen.UNDER_WAY.value, timeout=_whole_seconds(now, until)):
            return Seen.NEW
        # What has gone meanwhile may be begun when it comes again.
        handled = self._cache.get(name) == Seen.HANDLED.value
        return Seen.HANDLED if handled else Seen.UNDER_WAY

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled."""
        seconds = _whole_seconds(now, until)
        self._cache.set(self._name(key), Seen.HANDLED.value, timeout=seconds)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        self._cache.delete(self._name(key))

    def _name(self, key: str) -> str:
        """A name that every cache takes, whatever is in an id."""
        return self._prefix + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _whole_seconds(now: datetime, until: datetime) -> int:
    return math.ceil((until - now).total_seconds())
