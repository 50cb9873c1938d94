"""How much is under way, in all and by recipient, and how much more may be."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from thorn_core.settings import Settings

# A request under way for longer doesn't count against the concurrency, so that recipients that
# hang can't hold up the others; SLOW_FACTOR times the concurrency may be under way in that way.
SLOW_SECONDS = 1.0
SLOW_FACTOR = 2
# Recipients remembered for not having answered.
CAP_CACHE = 10_000


class Load:
    """What one worker has under way.

    Args:
        settings: The app's.
    """

    def __init__(self, settings: Settings) -> None:
        self._concurrency = settings.concurrency
        self._most = settings.recipient_concurrency
        self._waiting = 0
        self._begun: dict[str, float] = {}
        self._busy: dict[str, int] = {}
        self._caps: dict[str, int] = {}

    def claimed(self, recipient: str) -> None:
        """A delivery to this recipient is to be requested soon."""
        self._waiting += 1
        self._busy[recipient] = self._busy.get(recipient, 0) + 1

    def returned(self, recipient: str) -> None:
        """It isn't, after all."""
        self._waiting -= 1
        self._leave(recipient)

    def began(self, delivery_id: str) -> None:
        """Its request begins."""
        self._waiting -= 1
        self._begun[delivery_id] = monotonic()

    def ended(self, delivery_id: str, recipient: str) -> None:
        """Its request has ended."""
        del self._begun[delivery_id]
        self._leave(recipient)

    def _leave(self, recipient: str) -> None:
        left = self._busy[recipient] - 1
        if left:
            self._busy[recipient] = left
        else:
            del self._busy[recipient]

    @property
    def full(self) -> bool:
        """True if as much is under way as may be, slow requests counted."""
        return len(self._begun) + self._waiting >= self._concurrency

    def free(self, unsettled: int) -> int:
        """How many more may be claimed.

        Args:
            unsettled: How many have ended that the store doesn't know of yet.
        """
        taken = len(self._begun) + self._waiting
        if taken >= self._concurrency:
            horizon = monotonic() - SLOW_SECONDS
            slow = 0
            for begun in self._begun.values():
                if begun > horizon:
                    break
                slow += 1
            taken -= min(slow, SLOW_FACTOR * self._concurrency)
        # Requests may run ahead of a slow store, but not without end.
        return min(self._concurrency - taken, 4 * self._concurrency - unsettled)

    def by_recipient(self) -> Mapping[str, int]:
        """How many are under way to each; those that don't answer count as nearly full."""
        if not self._caps:
            return self._busy
        load = dict(self._busy)
        for recipient, cap in self._caps.items():
            load[recipient] = load.get(recipient, 0) + self._most - cap
        return load

    def heed(self, recipient: str, *, answered: bool) -> None:
        """Go down to one at a time to a recipient that doesn't answer; back up by doubling."""
        if not answered:
            self._caps.pop(recipient, None)
            self._caps[recipient] = 1
            if len(self._caps) > CAP_CACHE:
                del self._caps[next(iter(self._caps))]
        elif recipient in self._caps:
            self._caps[recipient] *= 2
            if self._caps[recipient] >= self._most:
                del self._caps[recipient]
