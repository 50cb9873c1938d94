"""An index of subscriptions by pattern and owner; lookups touch matching ones only."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

from thorn_core.patterns import candidates
from thorn_core.values import Subscription


def _insert(ids: list[str], key: str) -> None:
    # Ids sort by time, so this is almost always an append.
    if not ids or ids[-1] < key:
        ids.append(key)
    else:
        place = bisect_left(ids, key)
        if ids[place] != key:
            ids.insert(place, key)


def _remove(ids: list[str], key: str) -> None:
    place = bisect_left(ids, key)
    if place < len(ids) and ids[place] == key:
        del ids[place]


def _from(ids: list[str], after: str | None) -> Iterator[str]:
    start = 0 if after is None else bisect_right(ids, after)
    for place in range(start, len(ids)):
        yield ids[place]


class SubscriptionIndex:
    """Sorted ids of subscriptions, by pattern and owner, and by owner alone."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, list[str]] = {}
        self._by_owner: dict[str, dict[str | None, list[str]]] = {}
        self._owned: dict[str | None, list[str]] = {}
        self._all: list[str] = []

    def add(self, subscription: Subscription) -> None:
        """Add a subscription to the lists; add a disabled one only to the lists of its owner."""
        _insert(self._all, subscription.id)
        _insert(self._owned.setdefault(subscription.owner, []), subscription.id)
        if not subscription.enabled:
            return
        for pattern in subscription.events:
            _insert(self._by_pattern.setdefault(pattern, []), subscription.id)
            owners = self._by_owner.setdefault(pattern, {})
            _insert(owners.setdefault(subscription.owner, []), subscription.id)

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription from all lists."""
        _remove(self._all, subscription.id)
        self._discard(self._owned, subscription.owner, subscription.id)
        if not subscription.enabled:
            return
        for pattern in subscription.events:
            self._discard(self._by_pattern, pattern, subscription.id)
            owners = self._by_owner.get(pattern, {})
            self._discard(owners, subscription.owner, subscription.id)
            if not owners:
                self._by_owner.pop(pattern, None)

    @staticmethod
    def _discard(lists: dict[Any, list[str]], key: Any, subscription_id: str) -> None:
        ids = lists.get(key)
        if ids is not None:
            _remove(ids, subscription_id)
            if not ids:
                del lists[key]

    def matching(self, event: str, sender: str | None, after: str | None) -> Iterator[str]:
        """Return the ids of matching subscriptions after a given id, sorted, each once."""
        if sender is None:
            lists = [ids for p in candidates(event) if (ids := self._by_pattern.get(p))]
        else:
            lists = [
                ids
                for p in candidates(event)
                if (owners := self._by_owner.get(p))
                for owner in (sender, None)
                if (ids := owners.get(owner))
            ]
        if len(lists) == 1:
            return _from(lists[0], after)
        return _once(heapq.merge(*(_from(ids, after) for ids in lists)))

    def owned(self, owner: str | None, after: str | None) -> Iterator[str]:
        """Return the ids of all subscriptions, or of one owner's, after a given id, in order."""
        ids = self._all if owner is None else self._owned.get(owner, [])
        return _from(ids, after)


def _once(ids: Iterable[str]) -> Iterator[str]:
    last = None
    for key in ids:
        if key != last:
            yield key
        last = key
