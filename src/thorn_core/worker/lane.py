"""The direct lane: first attempts made from memory, before their deliveries have rows.

A worker attempts such a delivery under the lease of its message. Most first attempts end within a
second, and the recorder then inserts the delivery in its final form. The others get a row: a
delivery that still waits for a slot becomes pending, one in flight becomes leased.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from time import monotonic

import attrs

from thorn_core.settings import Settings
from thorn_core.values import (
    Claim,
    Completion,
    Delivery,
    DeliveryState,
    Message,
    Routing,
    Subscription,
)
from thorn_core.worker.load import Load

# Maximum seconds that a delivery waits for a slot, and that it is in flight, without a row; at most
# this part of a lease, so that the message's lease never ends first.
LONGEST_WAIT, LONGEST_FLIGHT = 0.5, 1.0
LEASE_PART = 4
# A recipient gets at most this share of the lane.
SHARE = 2

# A message, a new delivery of it, and the delivery's subscription.
Direct = tuple[Message, Delivery, Subscription]


@attrs.define
class Share:
    """The room in the lane for the deliveries of some messages.

    Attributes:
        room: Maximum number of deliveries.
        per_recipient: Maximum number of deliveries to one subscription, in progress or new.
        beside: The same for a subscription whose older deliveries are due.
        busy: Deliveries in progress by subscription id.
        chosen: The deliveries to attempt directly.
    """

    room: int
    per_recipient: int
    beside: int
    busy: Mapping[str, int]
    chosen: list[Direct] = attrs.field(factory=list)
    _taken: Counter[str] = attrs.field(factory=Counter)

    def choose(
        self,
        message: Message,
        deliveries: Iterable[Delivery],
        subscriptions: Mapping[str, Subscription],
        ready: Mapping[str, bool],
    ) -> list[Delivery]:
        """Choose deliveries of a message for the lane, as far as there is room.

        Args:
            message: The message.
            deliveries: Its new deliveries.
            subscriptions: Their subscriptions by id.
            ready: Subscriptions that may be attempted now, and whether deliveries to them are due.

        Returns:
            The other deliveries.
        """
        others = []
        for delivery in deliveries:
            id_ = delivery.subscription_id
            most = self.beside if ready.get(id_) else self.per_recipient
            if (
                id_ in ready
                and not delivery.state.finished
                and len(self.chosen) < self.room
                and self.busy.get(id_, 0) + self._taken[id_] < most
            ):
                self._taken[id_] += 1
                self.chosen.append((message, delivery, subscriptions[id_]))
            else:
                others.append(delivery)
        return others


@attrs.define(eq=False)
class _Entry:
    claim: Claim
    since: float
    named: bool
    started: set[str] | None
    begun_at: float | None = None
    ended: bool = False
    withdrawn: bool = False


class Lane:
    """The direct deliveries of one worker: waiting, in flight, or not yet recorded.

    Args:
        load: The worker's load.
        settings: The app's settings.

    Attributes:
        waiting: The number of deliveries that wait for a slot.
        sweep_seconds: Seconds between searches for overdue deliveries.
    """

    def __init__(self, load: Load, settings: Settings) -> None:
        self._most, self._load = settings.unrecorded, load
        self._flight = min(LONGEST_FLIGHT, settings.lease / LEASE_PART)
        self._wait = min(LONGEST_WAIT, self._flight / 2)
        self.sweep_seconds = self._wait / 2
        # In the order of their claims.
        self._entries: dict[str, _Entry] = {}
        # The number of deliveries without a row, by message.
        self._left: dict[str, int] = {}
        # The room of shares in use.
        self._reserved = 0
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def room(self) -> int:
        """The number of deliveries that the lane can still take."""
        return max(self._most - len(self._entries) - self._reserved, 0)

    @contextlib.contextmanager
    def sharing(self, wanted: int, *, named: bool, at_once: bool) -> Iterator[Share]:
        """Reserve room for the deliveries of some messages.

        Args:
            wanted: The number of deliveries that the worker would claim now.
            named: Whether a caller waits for these messages. They get no more room than claims,
                because possibly no worker claims them again.
            at_once: Ignore the limits per recipient.
        """
        load = self._load
        room = min(self.room, max(wanted, 0)) if named and not at_once else self.room
        if at_once:
            share = Share(room, room, room, {})
        else:
            most = load.per_recipient if named else max(load.per_recipient, self._most // SHARE)
            # A subscription with older deliveries gives half of its slots to new ones.
            share = Share(room, most, load.half, dict(load.by_recipient(most)))
        self._reserved += room
        try:
            yield share
        finally:
            self._reserved -= room

    def add(self, claims: Sequence[Claim], *, named: bool, started: set[str] | None) -> None:
        """Add all direct deliveries of some messages.

        Args:
            claims: The deliveries.
            named: Whether a caller waits for their messages.
            started: A caller's set of started deliveries, from which one is removed if it gets a
                row before its start.
        """
        now = monotonic()
        for claim in claims:
            self._entries[claim.delivery.id] = _Entry(claim, now, named, started)
            message_id = claim.message.id
            self._left[message_id] = self._left.get(message_id, 0) + 1
        self.waiting += len(claims)

    def begun(self, claim: Claim) -> None:
        """Note that a delivery has got a slot."""
        entry = self._entries.get(claim.delivery.id)
        if entry is not None:
            entry.begun_at = monotonic()
            self.waiting -= 1

    def ended(self, claim: Claim) -> None:
        """Note that a delivery's attempt has ended."""
        entry = self._entries.get(claim.delivery.id)
        if entry is not None:
            entry.ended = True

    def current(self, completion: Completion) -> Completion:
        """Return a completion whose claim is direct only if its delivery still has no row."""
        claim = completion.claim
        if not claim.direct or claim.delivery.id in self._entries:
            return completion
        return attrs.evolve(completion, claim=attrs.evolve(claim, direct=False))

    def routed_by(self, claims: Iterable[Claim]) -> set[str]:
        """Return the messages whose last deliveries without a row are among these."""
        numbers = Counter(claim.message.id for claim in claims if claim.direct)
        return {id_ for id_, number in numbers.items() if self._left.get(id_) == number}

    def stored(self, claims: Iterable[Claim]) -> None:
        """Remove deliveries that have rows now."""
        for claim in claims:
            message_id = claim.message.id
            if self._removed(claim) and message_id in self._left:
                self._left[message_id] -= 1
                if not self._left[message_id]:
                    del self._left[message_id]

    def forget(self, claim: Claim) -> None:
        """Remove a delivery without a row; another worker routes its message again."""
        if self._removed(claim):
            self._left.pop(claim.message.id, None)

    def _removed(self, claim: Claim) -> bool:
        entry = self._entries.pop(claim.delivery.id, None)
        if entry is None:
            return False
        if entry.begun_at is None and not entry.withdrawn:
            self.waiting -= 1
        return True

    def overdue(self) -> tuple[list[Claim], list[Claim]]:
        """Return the deliveries that need rows, pending and leased ones.

        Those that wait for a slot don't start any more.
        """
        now = monotonic()
        pending, leased = [], []
        for entry in self._entries.values():
            if entry.since > now - self._wait:
                break
            if entry.ended:
                continue
            if entry.begun_at is not None:
                if entry.begun_at <= now - self._flight:
                    leased.append(entry.claim)
            elif entry.named:
                leased.append(entry.claim)
            else:
                self._withdraw(entry)
                pending.append(entry.claim)
        return pending, leased

    def _withdraw(self, entry: _Entry) -> None:
        if entry.withdrawn:  # The store failed at the last sweep.
            return
        self._load.withdraw(entry.claim)
        entry.withdrawn = True
        self.waiting -= 1
        if entry.started is not None:
            entry.started.discard(entry.claim.delivery.id)

    def unfinished(self) -> list[Claim]:
        """Return all deliveries whose attempts have not ended."""
        return [entry.claim for entry in self._entries.values() if not entry.ended]


def routings_of(
    claims: Iterable[Claim], routed: Collection[str], state: DeliveryState = DeliveryState.PENDING
) -> list[Routing]:
    """Return routings that store the deliveries of claims.

    Args:
        claims: The claims.
        routed: Ids of messages whose other deliveries are stored.
        state: The deliveries' state.
    """
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.message.id, []).append(claim)
    return [
        Routing(
            message=some[0].message,
            deliveries=[attrs.evolve(claim.delivery, state=state) for claim in some],
            complete=some[0].message.id in routed,
        )
        for some in found.values()
    ]
