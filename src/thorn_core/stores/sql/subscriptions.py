"""Stored subscriptions, and the lookup of those that match an event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

import attrs

from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.ports.tables import Column
from thorn_core.stores.rules import Changes, Health, changed, judge_subscriptions
from thorn_core.stores.sql.matching import NOBODY, first_ids, ids_of_each
from thorn_core.stores.sql.rows import clean, micros, moment, subscription_of, subscription_row
from thorn_core.stores.sql.schema import PATTERNS, SUBSCRIPTIONS
from thorn_core.stores.sql.statements import Statements
from thorn_core.values import Completion, Message, Subscription

COLUMNS = ", ".join(SUBSCRIPTIONS.names)
HEALTH = tuple(
    SUBSCRIPTIONS.column(name)
    for name in ("id", "failing_since", "failures", "last_failure_at", "enabled", "disabled_reason")
)

GET = f"SELECT {COLUMNS} FROM $subscriptions WHERE id = :id.name"
GET_MANY = f"SELECT {COLUMNS} FROM $subscriptions WHERE id IN (:ids.name*)"
PAGE = (
    f"SELECT {COLUMNS} FROM $subscriptions WHERE id > :after.name{{owned}}"
    " ORDER BY id LIMIT :most.int"
)
OWNED = " AND owner = :owner.name"
REMOVE = "DELETE FROM $subscriptions WHERE id = :id.name"
READ_HEALTH = (
    f"SELECT {', '.join(column.name for column in HEALTH)} FROM $subscriptions"
    " WHERE id IN (:ids.name*) ORDER BY id"
)
SET_HEALTH = ", ".join(f"{column.name} = v.{column.name}" for column in HEALTH[1:4])
DISABLE = (
    "UPDATE $subscriptions SET enabled = 0, disabled_reason = :reason.text, updated_at = :at.big,"
    " version = version + 1 WHERE id = :id.name"
)
SET_PAUSED = (
    "UPDATE $subscriptions SET paused = :paused.small, updated_at = :at.big, version = version + 1"
    " WHERE id = :id.name"
)
REMOVE_PATTERNS = "DELETE FROM $patterns WHERE subscription_id = :id.name"


class Recipients(Protocol):
    """Reacts to changes of subscriptions."""

    def changed(self, statements: Statements, before: Subscription, after: Subscription) -> None:
        """React to a changed subscription, in the same transaction."""
        ...

    def pause(
        self, statements: Statements, subscription_id: str, stored: Subscription | None
    ) -> bool:
        """React to a paused subscription, in the same transaction."""
        ...

    def resume(
        self, statements: Statements, subscription_id: str, stored: Subscription | None, now: int
    ) -> bool:
        """React to a resumed subscription, in the same transaction."""
        ...

    def removed(self, statements: Statements, subscription_id: str, now: int) -> None:
        """React to a removed subscription, in the same transaction."""
        ...


def insert_rows(statements: Statements, subscriptions: Sequence[Subscription]) -> None:
    """Insert rows into the table of subscriptions."""
    statements.insert(SUBSCRIPTIONS, [subscription_row(each) for each in subscriptions])


def delete_row(statements: Statements, subscription_id: str) -> bool:
    """Delete the row of a subscription; return False if it doesn't exist."""
    return bool(statements.change(REMOVE, id=subscription_id))


class Subscriptions:
    """The tables of subscriptions and their patterns.

    Args:
        recipients: Reacts to changes of subscriptions.
        insert: Inserts rows; for a table with more columns, the framework does it.
        delete: Deletes a row; if other tables refer to it, the framework does it.
    """

    def __init__(
        self,
        recipients: Recipients,
        *,
        insert: Callable[[Statements, Sequence[Subscription]], None] = insert_rows,
        delete: Callable[[Statements, str], bool] = delete_row,
    ) -> None:
        self._recipients = recipients
        self._insert, self._delete = insert, delete

    # -- changes

    def add(self, statements: Statements, subscription: Subscription) -> None:
        """Insert a subscription.

        Raises:
            ConfigurationError: The id exists, or a value is too long for its column.
        """
        if statements.first(GET, id=subscription.id) is not None:
            raise ConfigurationError(f"the subscription {subscription.id!r} already exists")
        self.add_many(statements, [subscription])

    def add_many(self, statements: Statements, subscriptions: Sequence[Subscription]) -> None:
        """Insert subscriptions; skip existing ids."""
        self._insert(statements, subscriptions)
        _add_patterns(statements, subscriptions)
        for each in subscriptions:
            if each.paused:
                self._recipients.pause(statements, each.id, each)

    def change(
        self,
        statements: Statements,
        subscription_id: str,
        change: Callable[[Subscription], Subscription],
    ) -> Subscription:
        """Change a subscription under a lock; write only the columns that differ.

        Args:
            statements: Runs the SQL, in a transaction.
            subscription_id: The subscription's id.
            change: Returns the changed subscription for the current one.

        Raises:
            NotFoundError: The subscription doesn't exist.
            ConfigurationError: The change sets another id, or a value is too long.
        """
        before = self._lock(statements, subscription_id)
        after = changed(before, change)
        differing = _differing(subscription_row(before), subscription_row(after))
        if not differing:
            return before
        told = ", ".join(f"{c.name} = :{c.name}.{c.kind.value}" for c in differing)
        statements.change(
            f"UPDATE $subscriptions SET {told}, version = version + 1 WHERE id = :id.name",
            **{column.name: value for column, value in differing.items()},
            id=subscription_id,
        )
        if _pattern_rows(before) != _pattern_rows(after):
            statements.change(REMOVE_PATTERNS, id=subscription_id)
            _add_patterns(statements, [after])
        self._recipients.changed(statements, before, after)
        return after

    def _lock(self, statements: Statements, subscription_id: str) -> Subscription:
        row = statements.first(f"{GET}{statements.wording.for_update}", id=subscription_id)
        if row is None:
            raise NotFoundError(f"there is no subscription {subscription_id!r}")
        return subscription_of(row)

    def set_paused(
        self, statements: Statements, subscription_id: str, now: datetime, *, paused: bool
    ) -> Subscription:
        """Pause or resume a subscription.

        Raises:
            NotFoundError: The subscription doesn't exist.
        """
        before = self._lock(statements, subscription_id)
        if before.paused is paused:
            return before
        at = micros(now)
        statements.change(SET_PAUSED, id=subscription_id, paused=int(paused), at=at)
        if paused:
            self._recipients.pause(statements, subscription_id, before)
        else:
            self._recipients.resume(statements, subscription_id, before, at)
        return attrs.evolve(before, paused=paused, updated_at=now)

    def remove(self, statements: Statements, subscription_id: str, now: int) -> bool:
        """Remove a subscription, at a time in microseconds; return False if it doesn't exist."""
        gone = self._delete(statements, subscription_id)
        if gone:
            self.forget(statements, subscription_id, now)
        return gone

    def forget(self, statements: Statements, subscription_id: str, now: int) -> None:
        """Delete the patterns of a removed subscription, and make its deliveries claimable."""
        statements.change(REMOVE_PATTERNS, id=subscription_id)
        self._recipients.removed(statements, subscription_id, now)

    def judge(
        self, statements: Statements, completions: Sequence[Completion]
    ) -> list[Subscription]:
        """Apply the results of attempts to subscriptions.

        Most attempts don't change their subscription; then no row is locked.

        Args:
            statements: Runs the SQL, in the transaction that records the attempts.
            completions: Completions with a valid lease.

        Returns:
            The subscriptions that this call disabled, and those whose owners need a warning, in
            their current state.
        """
        ids = sorted({s.claim.delivery.subscription_id for s in completions if s.attempt})
        seen = judge_subscriptions(_health(statements, ids), completions)
        if not seen.health:
            return []
        locked = _health(statements, sorted(seen.health), statements.wording.for_update)
        changes = judge_subscriptions(locked, completions)
        _write(statements, changes)
        found = self.get_many(statements, changes.warned | changes.disabled.keys())
        return [found[key] for key in sorted(found)]

    # -- queries

    def get(self, statements: Statements, subscription_id: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        row = statements.first(GET, id=subscription_id)
        return None if row is None else subscription_of(row)

    def get_many(self, statements: Statements, ids: Iterable[str]) -> dict[str, Subscription]:
        """Return the subscriptions with these ids, by id."""
        asked = sorted(set(ids))
        rows = statements.rows(GET_MANY, ids=asked) if asked else []
        return {found.id: found for found in map(subscription_of, rows)}

    def page(
        self, statements: Statements, owner: str | None, after: str | None, limit: int
    ) -> list[Subscription]:
        """Return a page of all subscriptions, or of one owner's, ordered by id."""
        text = PAGE.format(owned="" if owner is None else OWNED)
        rows = statements.rows(text, owner=owner, after=after or "", most=limit)
        return [subscription_of(row) for row in rows]

    def matching(
        self, statements: Statements, event: str, sender: str | None, after: str | None, limit: int
    ) -> list[Subscription]:
        """Return a page of the subscriptions that match an event, ordered by id."""
        ids = first_ids(statements, event, sender, after, limit)
        by_id = self.get_many(statements, ids)
        return [by_id[key] for key in ids if key in by_id]

    def matching_each(
        self, statements: Statements, messages: Sequence[Message], limit: int
    ) -> list[list[Subscription]]:
        """Return the first page of `matching` for each message, by one lookup if they are few."""
        found = ids_of_each(statements, messages, limit)
        if found is None:
            first = messages[0]
            return [self.matching(statements, first.event, first.sender, None, limit)]
        by_id = self.get_many(statements, (key for ids in found for key in ids))
        return [[by_id[key] for key in ids if key in by_id] for ids in found]


def _differing(before: Sequence[Any], after: Sequence[Any]) -> dict[Column, Any]:
    pairs = zip(SUBSCRIPTIONS.columns, before, after, strict=True)
    return {column: new for column, old, new in pairs if new != old and column.name != "version"}


def _pattern_rows(subscription: Subscription) -> list[tuple[str, str, str]]:
    if not subscription.enabled:
        return []
    owner = NOBODY if subscription.owner is None else subscription.owner
    return [(p, owner, subscription.id) for p in dict.fromkeys(subscription.events)]


def _add_patterns(statements: Statements, subscriptions: Iterable[Subscription]) -> None:
    rows = [row for each in subscriptions for row in _pattern_rows(each)]
    statements.insert(PATTERNS, rows, ignoring=True)


def _health(statements: Statements, ids: Sequence[str], lock: str = "") -> dict[str, Health]:
    rows = statements.rows(f"{READ_HEALTH}{lock}", ids=ids) if ids else []
    return {
        key: Health(
            enabled=bool(enabled),
            disabled_reason=reason,
            failing_since=None if since is None else moment(since),
            failures=failures,
            last_failure_at=None if last is None else moment(last),
        )
        for key, since, failures, last, enabled, reason in rows
    }


def _write(statements: Statements, changes: Changes) -> None:
    """Update the health of subscriptions with locked rows.

    The number of failures doesn't change the version, so it doesn't conflict with edits.
    """
    rows = [
        (
            key,
            None if after.failing_since is None else micros(after.failing_since),
            after.failures,
            None if after.last_failure_at is None else micros(after.last_failure_at),
        )
        for key, after in sorted(changes.health.items())
    ]
    statements.update(SUBSCRIPTIONS, HEALTH[:4], rows, SET_HEALTH)
    for key, at in sorted(changes.disabled.items()):
        reason = clean(changes.health[key].disabled_reason)
        statements.change(DISABLE, id=key, reason=reason, at=micros(at))
        statements.change(REMOVE_PATTERNS, id=key)
