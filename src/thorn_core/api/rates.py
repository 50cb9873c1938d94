"""Rate limits per owner or per subscription."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime

MINUTE = 60.0
# Maximum number of keys; the least recently used are evicted.
MOST_KEYS = 10_000


class Rate:
    """A token bucket per key, in this process: a burst, refilled within a minute.

    Args:
        per_minute: The limit; None for no limit.

    Example:
        >>> from datetime import UTC
        >>> rate, now = Rate(2), datetime(2026, 3, 1, tzinfo=UTC)
        >>> [rate.take("ada", now) for _ in range(3)]
        [0.0, 0.0, 30.0]
    """

    def __init__(self, per_minute: float | None) -> None:
        self._gap = None if per_minute is None else MINUTE / per_minute
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, at: datetime) -> float:
        """Take a token, if there is one.

        Returns:
            Seconds until a token is available; 0 if one was taken.
        """
        if self._gap is None:
            return 0.0
        now = at.timestamp()
        with self._lock:
            # When the bucket is full again; setting the clock back doesn't delay it.
            full_at = min(max(self._full_at.pop(key, now), now), now + MINUTE)
            wait = full_at + self._gap - now - MINUTE
            # A rounding error isn't worth a refusal.
            taken = wait <= 1e-6
            self._full_at[key] = full_at + self._gap if taken else full_at
            if len(self._full_at) > MOST_KEYS:
                self._full_at.popitem(last=False)
        return 0.0 if taken else wait
