"""The load of a worker: requests in flight, in total and per subscription, and free capacity."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic

from thorn_core.settings import Settings
from thorn_core.values import Claim

# A longer request doesn't count against the concurrency, so that unresponsive recipients don't
# block others; up to SLOW_FACTOR times the concurrency may be in flight in that way.
SLOW_SECONDS = 1.0
SLOW_FACTOR = 2
# Maximum number of recipients tracked as unresponsive.
CAP_CACHE = 10_000


class Load:
    """The requests in flight of one worker, and its claims waiting to start.

    A recipient is a subscription's id: subscriptions of one host have separate limits.

    Args:
        settings: The app's settings.
        ahead: The number of deliveries to claim ahead of free capacity, so that requests don't wait
            for the store. Of one recipient, at most as many as its limit in flight.
    """

    def __init__(self, settings: Settings, ahead: int) -> None:
        self._concurrency = settings.concurrency
        self._most = settings.recipient_concurrency
        self._most_unrecorded = settings.unrecorded
        self._ahead = ahead
        # Start time and recipient, in order of time.
        self._begun: dict[str, tuple[float, str]] = {}
        self._under_way: dict[str, int] = {}
        self._busy: dict[str, int] = {}
        self._caps: dict[str, int] = {}
        self._waiting: dict[str, deque[Claim]] = {}
        # Recipients with both waiting claims and capacity, in round-robin order.
        self._turns: deque[str] = deque()
        self._in_turns: set[str] = set()
        # Claims that a sender waits for; the limits per recipient don't apply.
        self._at_once: deque[Claim] = deque()

    # -- waiting claims

    def claimed(self, claims: Sequence[Claim], *, at_once: bool = False) -> None:
        """Queue claims.

        Args:
            claims: The claims.
            at_once: Queue them before the others, and ignore the limits per recipient.
        """
        for claim in claims:
            recipient = claim.delivery.subscription_id
            self._busy[recipient] = self._busy.get(recipient, 0) + 1
            if at_once:
                self._at_once.append(claim)
                continue
            queue = self._waiting.get(recipient)
            if queue is None:
                queue = self._waiting[recipient] = deque()
            queue.append(claim)
            self._queue_up(recipient)

    def next(self) -> Claim | None:
        """Start the next claim whose recipient has capacity, round robin."""
        if self._at_once:
            claim = self._at_once.popleft()
            recipient = claim.delivery.subscription_id
        elif self._turns:
            recipient = self._turns.popleft()
            self._in_turns.discard(recipient)
            queue = self._waiting[recipient]
            claim = queue.popleft()
            if not queue:
                del self._waiting[recipient]
        else:
            return None
        self._begun[claim.delivery.id] = (monotonic(), recipient)
        self._under_way[recipient] = self._under_way.get(recipient, 0) + 1
        self._queue_up(recipient)
        return claim

    def ended(self, claim: Claim) -> None:
        """Note that a claim's request has ended."""
        recipient = claim.delivery.subscription_id
        del self._begun[claim.delivery.id]
        _less(self._under_way, recipient)
        _less(self._busy, recipient)
        self._queue_up(recipient)

    def withdraw(self, claim: Claim) -> None:
        """Drop a waiting claim; it will not be sent."""
        recipient = claim.delivery.subscription_id
        queue = self._waiting.get(recipient, deque())
        for place, other in enumerate(queue):
            if other is claim:
                del queue[place]
                _less(self._busy, recipient)
                if not queue:
                    self._forget_turn(recipient)
                break

    def _forget_turn(self, recipient: str) -> None:
        del self._waiting[recipient]
        if recipient in self._in_turns:
            self._turns.remove(recipient)
            self._in_turns.discard(recipient)

    def forget_waiting(self) -> None:
        """Drop the waiting claims; they will not be sent."""
        for recipient, queue in self._waiting.items():
            _less(self._busy, recipient, len(queue))
        for claim in self._at_once:
            _less(self._busy, claim.delivery.subscription_id)
        self._at_once.clear()
        self._waiting.clear()
        self._turns.clear()
        self._in_turns.clear()

    def _queue_up(self, recipient: str) -> None:
        if (
            recipient in self._waiting
            and recipient not in self._in_turns
            and self._room(recipient) > 0
        ):
            self._turns.append(recipient)
            self._in_turns.add(recipient)

    def _room(self, recipient: str) -> int:
        return self._caps.get(recipient, self._most) - self._under_way.get(recipient, 0)

    @property
    def startable(self) -> int:
        """The number of waiting claims whose recipients have capacity."""
        return len(self._at_once) + sum(
            min(len(queue), max(self._room(recipient), 0))
            for recipient, queue in self._waiting.items()
        )

    # -- capacity

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return len(self._begun)

    @property
    def full(self) -> bool:
        """True if the number of requests in flight, slow ones included, is at its limit."""
        return len(self._begun) >= self._concurrency

    def slots(self) -> int:
        """Return the current limit of requests in flight; slow ones make room for others."""
        if len(self._begun) < self._concurrency:
            return self._concurrency
        slow = sum(1 for _ in self._slow())
        return self._concurrency + min(slow, SLOW_FACTOR * self._concurrency)

    def _slow(self) -> Iterator[str]:
        """Return the recipients of slow requests."""
        horizon = monotonic() - SLOW_SECONDS
        for begun, recipient in self._begun.values():
            if begun > horizon:
                break
            yield recipient

    def room(self, unrecorded: int) -> int:
        """Return the number of further requests that may start.

        Args:
            unrecorded: Number of outcomes not yet recorded in the store.
        """
        repeatable = self._most_unrecorded - unrecorded - len(self._begun)
        return max(min(self.slots() - len(self._begun), repeatable), 0)

    def wanted(self, unrecorded: int) -> int:
        """Return the number of further deliveries to claim.

        Args:
            unrecorded: Number of outcomes not yet recorded in the store.
        """
        return self.room(unrecorded) - self.startable + self._ahead

    @property
    def per_recipient(self) -> int:
        """The maximum number of concurrent claims per recipient."""
        return self._most + min(self._ahead, self._most)

    @property
    def half(self) -> int:
        """Half of a recipient's slots."""
        return max(self._most // 2, 1)

    def crowded(self) -> set[str]:
        """Return the recipients that have reached their limit of claims."""
        most = self.per_recipient
        return {recipient for recipient, n in self.by_recipient().items() if n >= most}

    def stuck(self) -> set[str]:
        """Return the recipients whose requests in flight are all slow."""
        slow = Counter(self._slow())
        return {recipient for recipient, n in slow.items() if n == self._under_way[recipient]}

    def by_recipient(self, most: int | None = None) -> Mapping[str, int]:
        """Return claims by recipient; count unresponsive recipients as nearly full.

        Args:
            most: The maximum number of claims per recipient, if it isn't `per_recipient`.
        """
        if not self._caps:
            return self._busy
        load, most = dict(self._busy), most or self.per_recipient
        for recipient, cap in self._caps.items():
            load[recipient] = load.get(recipient, 0) + most - cap
        return load

    def heed(self, recipient: str, *, answered: bool) -> None:
        """Limit an unresponsive recipient to one request; double the limit with each response."""
        if not answered:
            self._caps.pop(recipient, None)
            self._caps[recipient] = 1
            if len(self._caps) > CAP_CACHE:
                del self._caps[next(iter(self._caps))]
        elif recipient in self._caps:
            self._caps[recipient] *= 2
            if self._caps[recipient] >= self._most:
                del self._caps[recipient]


def _less(counts: dict[str, int], key: str, by: int = 1) -> None:
    left = counts[key] - by
    if left:
        counts[key] = left
    else:
        del counts[key]
