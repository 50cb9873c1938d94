"""The outbox of the memory store: messages that wait for routing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice

from thorn_core.stores.memory.history import History
from thorn_core.stores.memory.records import MessageRecord, is_being_routed, is_unrouted
from thorn_core.stores.memory.time_queue import TimeQueue
from thorn_core.values import Message


class Outbox:
    """Messages in the order of time, and their leases. The store holds the lock.

    Args:
        history: Stores the messages.
        serials: Numbers that order entries with equal times.
    """

    def __init__(self, history: History, serials: Iterator[int]) -> None:
        self._history = history
        self._serials = serials
        self._unrouted = TimeQueue(is_unrouted)
        self._leases = TimeQueue(is_being_routed)

    def publish(self, messages: Sequence[Message]) -> dict[str, str]:
        """Store messages; return the ids of duplicates with the earlier ids."""
        present = {}
        for message in messages:
            earlier = self._history.earlier(message)
            if earlier is not None:
                present[message.id] = earlier
            elif message.id not in self._history.messages:
                kept = MessageRecord(message, next(self._serials))
                self._history.take_in(kept)
                self._unrouted.push(message.at, kept.serial, kept)
        return present

    def claim(
        self, now: datetime, until: datetime, limit: int, ids: Collection[str] | None
    ) -> list[Message]:
        """Lease messages that are not routed yet."""
        while (first := self._leases.first()) and first[0] <= now:
            kept = first[1]
            self._leases.pop()
            kept.leased_until = None
            self._unrouted.push(kept.message.at, kept.serial, kept)
        claimed: list[Message] = []
        if ids is not None:
            for key in islice(ids, limit):
                named = self._history.messages.get(key)
                if named is not None and is_unrouted(named, now):
                    claimed.append(self._lease(named, until))
            return claimed
        while len(claimed) < limit and (first := self._unrouted.first()):
            self._unrouted.pop()
            claimed.append(self._lease(first[1], until))
        return claimed

    def _lease(self, kept: MessageRecord, until: datetime) -> Message:
        kept.leased_until = until
        self._leases.push(until, kept.serial, kept)
        return kept.message

    def postpone(self, message_ids: Sequence[str], until: datetime) -> None:
        """Postpone leased messages until the given time."""
        for key in message_ids:
            kept = self._history.messages.get(key)
            if kept is not None and kept.leased_until is not None and not kept.routed:
                self._lease(kept, until)

    def next_time(self) -> datetime | None:
        """Return the end of the next lease."""
        first = self._leases.first()
        return None if first is None else first[0]
