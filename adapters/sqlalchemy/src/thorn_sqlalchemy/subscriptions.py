"""Subscriptions, and which of them an event reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    insert,
    select,
    union_all,
    update,
)
from sqlalchemy.sql import Select

from thorn_core import ConfigurationError, Message, NotFoundError, Settlement, Subscription
from thorn_core.patterns import candidates
from thorn_core.stores.rules import HEALTH, judge_subscriptions
from thorn_sqlalchemy.rows import (
    clean,
    health_of,
    health_row,
    micros,
    subscription_of,
    subscription_row,
)
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import chunks, one_of

# The owner of those without one, in the table of patterns.
NOBODY = ""
# Patterns asked for in one statement.
TERMS = 64


class Subscriptions:
    """The tables of subscriptions and their patterns.

    Args:
        tables: The tables.
        dialect: Name of the database.
    """

    def __init__(self, tables: Tables, dialect: str) -> None:
        self._table = table = tables.subscriptions
        self._patterns = patterns = tables.patterns
        self._made: dict[tuple[int, bool], Select[Any]] = {}
        self._get = select(table).where(table.c.id == bindparam("key"))
        self._get_many = select(table).where(one_of(dialect, table.c.id, "keys"))
        self._insert = insert(table)
        self._update = update(table).where(table.c.id == bindparam("key"))
        self._health = select(table.c.id, *(table.c[name] for name in HEALTH)).where(
            one_of(dialect, table.c.id, "keys")
        )
        self._disable = self._update.where(table.c.enabled)
        self._remove = delete(table).where(table.c.id == bindparam("key"))
        self._insert_patterns = insert(patterns)
        self._remove_patterns = delete(patterns).where(
            patterns.c.subscription_id == bindparam("key")
        )
        page = select(table).order_by(table.c.id).limit(bindparam("most"))
        self._page = page.where(table.c.id > bindparam("after"))
        self._owned = self._page.where(table.c.owner == bindparam("owner"))
        pairs = select(patterns.c.pattern, patterns.c.owner, patterns.c.subscription_id).where(
            one_of(dialect, patterns.c.pattern, "patterns")
        )
        self._pairs = pairs.limit(bindparam("most"))
        self._owned_pairs = pairs.where(one_of(dialect, patterns.c.owner, "owners")).limit(
            bindparam("most")
        )

    def add(self, connection: Connection, subscription: Subscription) -> None:
        """Insert one.

        Raises:
            ConfigurationError: The id is taken.
        """
        if connection.execute(self._get, {"key": subscription.id}).first() is not None:
            raise ConfigurationError(f"the subscription {subscription.id!r} already exists")
        self.add_many(connection, [subscription])

    def add_many(self, connection: Connection, subscriptions: Sequence[Subscription]) -> None:
        """Insert several that aren't there."""
        connection.execute(self._insert, [subscription_row(s) for s in subscriptions])
        patterns = [row for s in subscriptions for row in _pattern_rows(s)]
        if patterns:
            connection.execute(self._insert_patterns, patterns)

    def save(self, connection: Connection, subscription: Subscription) -> None:
        """Replace one.

        Raises:
            NotFoundError: There is none.
        """
        row = subscription_row(subscription)
        key = row.pop("id")
        changed = connection.execute(self._update.values(row), {"key": key})
        if not changed.rowcount:
            raise NotFoundError(f"there is no subscription {subscription.id!r}")
        connection.execute(self._remove_patterns, {"key": key})
        patterns = _pattern_rows(subscription)
        if patterns:
            connection.execute(self._insert_patterns, patterns)

    def remove(self, connection: Connection, subscription_id: str) -> bool:
        """Remove one; False if there is none."""
        connection.execute(self._remove_patterns, {"key": subscription_id})
        return bool(connection.execute(self._remove, {"key": subscription_id}).rowcount)

    def get(self, connection: Connection, subscription_id: str) -> Subscription | None:
        """The one of that id."""
        row = connection.execute(self._get, {"key": subscription_id}).first()
        return None if row is None else subscription_of(row)

    def get_many(self, connection: Connection, ids: Sequence[str]) -> dict[str, Subscription]:
        """Those of these ids, by id."""
        return {
            row.id: subscription_of(row)
            for some in chunks(ids)
            for row in connection.execute(self._get_many, {"keys": some}).all()
        }

    def page(
        self, connection: Connection, owner: str | None, after: str | None, limit: int
    ) -> list[Subscription]:
        """A page of all, or of one owner's."""
        values = {"after": after or "", "most": limit}
        if owner is None:
            rows = connection.execute(self._page, values)
        else:
            rows = connection.execute(self._owned, {**values, "owner": owner})
        return [subscription_of(row) for row in rows]

    def judge(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> list[Subscription]:
        """Write what settlements change of subscriptions.

        Args:
            connection: In the transaction that settles.
            settlements: Those whose lease is still held.

        Returns:
            Subscriptions disabled by this call (not ones already disabled by another), and those
            whose owners are to be warned.
        """
        keys = {s.claim.delivery.subscription_id for s in settlements if s.attempt is not None}
        health = {
            row.id: health_of(row)
            for some in chunks(sorted(keys))
            for row in connection.execute(self._health, {"keys": some}).all()
        }
        changes = judge_subscriptions(health, settlements)
        for key, after in sorted(changes.health.items()):
            connection.execute(self._update.values(health_row(after)), {"key": key})
        notable = set(changes.warned)
        for key, at in sorted(changes.disabled.items()):
            values = {
                "enabled": False,
                "disabled_reason": clean(changes.health[key].disabled_reason),
                "updated_at": micros(at),
            }
            if connection.execute(self._disable.values(values), {"key": key}).rowcount:
                connection.execute(self._remove_patterns, {"key": key})
                notable.add(key)
        found = self.get_many(connection, sorted(notable))
        return [found[key] for key in sorted(found)]

    # -- matching

    def matching(
        self, connection: Connection, event: str, sender: str | None, after: str | None, limit: int
    ) -> list[Subscription]:
        """A page of what an event reaches, in the order of ids.

        Each candidate pattern is asked for its own first ids, so that a page costs as much as it
        holds, however many subscriptions match.
        """
        found: set[str] = set()
        owners = [None] if sender is None else [sender, NOBODY]
        asked = [(pattern, owner) for pattern in candidates(event) for owner in owners]
        for some in chunks(asked, TERMS):
            values: dict[str, Any] = {"after": after or "", "most": limit}
            for number, (pattern, owner) in enumerate(some):
                values[f"pattern{number}"] = pattern
                if owner is not None:
                    values[f"owner{number}"] = owner
            statement = self._first_ids(len(some), owned=sender is not None)
            found.update(connection.execute(statement, values).scalars())
        ids = sorted(found)[:limit]
        by_id = self.get_many(connection, ids)
        return [by_id[key] for key in ids if key in by_id]

    def _first_ids(self, terms: int, *, owned: bool) -> Select[Any]:
        made = self._made.get((terms, owned))
        if made is None:
            made = self._made[terms, owned] = self._make_first_ids(terms, owned=owned)
        return made

    def _make_first_ids(self, terms: int, *, owned: bool) -> Select[Any]:
        patterns = self._patterns
        parts = []
        for number in range(terms):
            part = select(patterns.c.subscription_id).where(
                patterns.c.pattern == bindparam(f"pattern{number}"),
                patterns.c.subscription_id > bindparam("after"),
            )
            if owned:
                part = part.where(patterns.c.owner == bindparam(f"owner{number}"))
            part = part.order_by(patterns.c.subscription_id).limit(bindparam("most"))
            parts.append(select(part.subquery().c.subscription_id))
        return select(union_all(*parts).subquery().c.subscription_id)

    def matching_each(
        self, connection: Connection, messages: Sequence[Message], limit: int
    ) -> list[list[Subscription]]:
        """First pages of `matching` for messages: for all at once if they aren't too many."""
        wanted: dict[str, tuple[str, ...]] = {m.event: candidates(m.event) for m in messages}
        patterns = list(dict.fromkeys(p for some in wanted.values() for p in some))
        senders = {message.sender for message in messages}
        if len(patterns) <= 1000 and len(senders) <= 1000:
            values: dict[str, Any] = {"patterns": patterns, "most": limit + 1}
            if None in senders:
                rows = connection.execute(self._pairs, values).all()
            else:
                values["owners"] = [*senders, NOBODY]
                rows = connection.execute(self._owned_pairs, values).all()
            if len(rows) <= limit:
                return self._shared_out(connection, messages, wanted, rows)
        first = messages[0]
        return [self.matching(connection, first.event, first.sender, None, limit)]

    def _shared_out(
        self,
        connection: Connection,
        messages: Sequence[Message],
        wanted: dict[str, tuple[str, ...]],
        rows: Sequence[Any],
    ) -> list[list[Subscription]]:
        by_pattern: dict[str, list[tuple[str, str]]] = {}
        for pattern, owner, subscription_id in rows:
            by_pattern.setdefault(pattern, []).append((owner, subscription_id))
        known = self.get_many(connection, list({row.subscription_id for row in rows}))
        pages = []
        for message in messages:
            owners = (message.sender, NOBODY)
            ids = {
                key
                for pattern in wanted[message.event]
                for owner, key in by_pattern.get(pattern, ())
                if message.sender is None or owner in owners
            }
            pages.append([known[key] for key in sorted(ids) if key in known])
        return pages


def _pattern_rows(subscription: Subscription) -> list[dict[str, str]]:
    if not subscription.enabled:
        return []
    owner = NOBODY if subscription.owner is None else subscription.owner
    return [
        {"pattern": pattern, "owner": owner, "subscription_id": subscription.id}
        for pattern in dict.fromkeys(subscription.events)
    ]
