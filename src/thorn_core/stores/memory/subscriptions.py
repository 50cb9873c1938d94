"""The subscriptions of the memory store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

import attrs

from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.ports.store import Change
from thorn_core.stores import rules
from thorn_core.stores.memory.subscription_index import SubscriptionIndex
from thorn_core.values import Completion, Subscription


class Subscriptions:
    """Subscriptions by id, with an index for matching. The store holds the lock."""

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._index = SubscriptionIndex()

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, subscription: Subscription) -> None:
        """Store a new subscription."""
        if subscription.id in self._by_id:
            raise ConfigurationError(f"the subscription {subscription.id!r} already exists")
        self._by_id[subscription.id] = subscription
        self._index.add(subscription)

    def change(self, key: str, change: Change) -> tuple[Subscription, Subscription]:
        """Change a subscription; return its old and new value."""
        before = self.required(key)
        after = rules.changed(before, change)
        self._replace(before, after)
        return before, after

    def set_paused(self, key: str, *, paused: bool, now: datetime) -> Subscription:
        """Pause or resume a subscription."""
        before = self.required(key)
        if before.paused is not paused:
            self._by_id[key] = attrs.evolve(before, paused=paused, updated_at=now)
        return self._by_id[key]

    def remove(self, key: str) -> bool:
        """Remove a subscription; return False if it doesn't exist."""
        subscription = self._by_id.pop(key, None)
        if subscription is not None:
            self._index.remove(subscription)
        return subscription is not None

    def _replace(self, before: Subscription, after: Subscription) -> None:
        if (before.events, before.owner, before.enabled) != (
            after.events,
            after.owner,
            after.enabled,
        ):
            self._index.remove(before)
            self._index.add(after)
        self._by_id[after.id] = after

    def get(self, key: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        return self._by_id.get(key)

    def required(self, key: str) -> Subscription:
        """Return the subscription with this id, or raise NotFoundError."""
        subscription = self._by_id.get(key)
        if subscription is None:
            raise NotFoundError(f"there is no subscription {key!r}")
        return subscription

    def is_paused(self, key: str) -> bool:
        """Return True if the subscription exists and is paused."""
        subscription = self._by_id.get(key)
        return subscription is not None and subscription.paused

    def page(self, owner: str | None, after: str | None, limit: int) -> list[Subscription]:
        """Return a page of all subscriptions, or of one owner's."""
        return [self._by_id[key] for key in islice(self._index.owned(owner, after), limit)]

    def matching(
        self, event: str, sender: str | None, after: str | None, limit: int
    ) -> list[Subscription]:
        """Return a page of the enabled subscriptions that match an event."""
        ids = islice(self._index.matching(event, sender, after), limit)
        return [self._by_id[key] for key in ids]

    def judge(self, completions: Sequence[Completion]) -> list[Subscription]:
        """Apply completions; return newly disabled subscriptions and those that need a warning."""
        keys = {completion.claim.delivery.subscription_id for completion in completions}
        known = {key: self._by_id[key] for key in keys if key in self._by_id}
        health = {key: rules.health_of(subscription) for key, subscription in known.items()}
        changes = rules.judge_subscriptions(health, completions)
        for key, after in changes.health.items():
            changed = attrs.evolve(known[key], **attrs.asdict(after))
            if key in changes.disabled:
                changed = attrs.evolve(changed, updated_at=changes.disabled[key])
            self._replace(known[key], changed)
        return [self._by_id[key] for key in sorted({*changes.disabled, *changes.warned})]
