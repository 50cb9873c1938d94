"""The outbox: published messages that wait for routing.

A message has a row in the outbox until it is routed completely. A lease doesn't move the row in the
order of waiting messages, so an expired lease needs no clean-up.

Routing locks the message's row in the outbox, or the row in the table of messages if the message is
already routed. So only one transaction creates deliveries of a message at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from thorn_core.keys import message_id, message_key
from thorn_core.stores.sql.messages import Messages
from thorn_core.stores.sql.queue import Queue
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.rows import delivery_row, key_of_message, message_row, micros
from thorn_core.stores.sql.schema import DELIVERIES, IDEMPOTENCY, MESSAGES, OUTBOX
from thorn_core.stores.sql.statements import Statements, batches
from thorn_core.stores.sql.wording import POSTGRESQL
from thorn_core.values import Delivery, Message, Routing, Subscription

# The number of leased messages that `next_due` examines.
LOOKED_AT = 1000
# The highest stored number of claims of a message.
MOST_TRIES = 10_000

NEW = "0, 0, NULL, NULL, NULL, 0"
# One statement, because the sender waits for it.
INSERT_BOTH = (
    f"WITH made AS ({{insert}} RETURNING id) INSERT INTO $outbox ({', '.join(OUTBOX.names)})"
    f" SELECT id, {NEW} FROM made"
)
FIRST = "SELECT digest, message_id FROM $idempotency WHERE digest IN (:digests.key*)"
_FREE = "(leased_until IS NULL OR leased_until <= :now.big)"
POSTPONED = (
    f"SELECT message_id, tries FROM $outbox WHERE route_at > 0 AND route_at <= :now.big AND {_FREE}"
    " ORDER BY route_at, message_id"
)
FRESH = f"SELECT message_id, tries FROM $outbox WHERE route_at = 0 AND {_FREE} ORDER BY message_id"
NAMED = (
    "SELECT message_id, tries FROM $outbox WHERE message_id IN (:keys.key*)"
    f" AND route_at <= :now.big AND {_FREE}"
)
LEASE = (
    "UPDATE $outbox SET leased_until = :until.big, token = :token.name,"
    " tries = {least}(tries + 1, :most.int)"
    " WHERE message_id IN (:keys.key*)"
)
POSTPONE = (
    "UPDATE $outbox SET route_at = :until.big, leased_until = NULL, token = NULL"
    " WHERE message_id IN (:keys.key*)"
    " AND (leased_until IS NOT NULL OR route_at > 0)"
)
WAITING = "SELECT message_id FROM $outbox WHERE message_id IN (:keys.key*) ORDER BY message_id"
KEPT = "SELECT id FROM $messages WHERE id IN (:keys.key*) ORDER BY id"
THERE = "SELECT id FROM $deliveries WHERE id IN (:keys.key*)"
ROUTED = "DELETE FROM $outbox WHERE message_id IN (:keys.key*)"
NEXT_POSTPONED = "SELECT min(route_at) FROM $outbox WHERE route_at > :now.big"
NEXT_LEASED = (
    "SELECT min(leased_until) FROM (SELECT leased_until FROM $outbox WHERE route_at <= :now.big"
    " ORDER BY route_at, message_id{limit}) first"
)


class Subscriptions(Protocol):
    """Holds the subscriptions."""

    def get_many(self, statements: Statements, ids: Collection[str]) -> Mapping[str, Subscription]:
        """Return subscriptions by id."""
        ...


class Outbox:
    """The table of messages that wait for routing.

    Args:
        messages: Holds the messages.
        queue: Holds the pending deliveries.
        recipients: Holds their recipients.
        subscriptions: Holds the stored subscriptions.
    """

    def __init__(
        self,
        messages: Messages,
        queue: Queue,
        recipients: Recipients,
        subscriptions: Subscriptions,
    ) -> None:
        self._messages, self._queue = messages, queue
        self._recipients, self._subscriptions = recipients, subscriptions

    # -- publish

    def publish(self, statements: Statements, messages: Sequence[Message]) -> dict[str, str]:
        """Insert new messages; skip existing ones.

        Args:
            statements: Runs the SQL, in a transaction, perhaps the caller's.
            messages: The messages.

        Returns:
            The ids of messages with a used idempotency key, each with the id of the key's first
            message.

        Raises:
            ConfigurationError: A value is too long for its column.
        """
        earlier = self._earlier(statements, messages)
        rows: dict[str, tuple[Any, ...]] = {}
        for message in messages:
            if message.id not in earlier and message.id not in rows:
                rows[message.id] = message_row(message)
        if statements.wording.dialect == POSTGRESQL:
            for some in batches(list(rows.values())):
                insert = statements.wording.insert(MESSAGES, len(some), ignoring=True)
                statements.given(INSERT_BOTH.format(insert=insert), some)
        else:
            statements.insert(MESSAGES, list(rows.values()), ignoring=True)
            waiting = [(row[0], 0, 0, None, None, None, 0) for row in rows.values()]
            statements.insert(OUTBOX, waiting, ignoring=True)
        return earlier

    def _earlier(self, statements: Statements, messages: Sequence[Message]) -> dict[str, str]:
        keyed = [m for m in messages if m.idempotency is not None]
        if not keyed:
            return {}
        rows: dict[bytes, tuple[Any, ...]] = {}
        for message in keyed:
            digest = message.idempotency
            assert digest is not None
            rows.setdefault(digest, (digest, key_of_message(message.id), micros(message.at)))
        # Sort the rows, so that no two transactions wait for each other.
        digests = sorted(rows)
        statements.insert(IDEMPOTENCY, [rows[digest] for digest in digests], ignoring=True)
        text = f"{FIRST}{statements.wording.current}"
        first = {d: message_id(key) for d, key in statements.rows(text, digests=digests)}
        return {
            m.id: first[m.idempotency]
            for m in keyed
            if m.idempotency is not None and first.get(m.idempotency, m.id) != m.id
        }

    # -- route

    def claim(
        self,
        statements: Statements,
        *,
        now: int,
        until: int,
        limit: int,
        token: str | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Message]:
        """Lease messages that are not routed yet, the oldest first.

        Args:
            statements: Runs the SQL, in a transaction.
            now: The current time in microseconds.
            until: The end of the lease in microseconds; a lease that ends now is not counted.
            limit: The maximum number.
            token: Identifies the lease.
            ids: Restricts the choice to these messages.
        """
        wording = statements.wording
        if limit <= 0:
            return []
        if ids is not None:
            asked = list(_keys(ids))[:limit]
            text = f"{NAMED}{wording.skip_locked}"
            found = statements.rows(text, keys=sorted(asked), now=now) if asked else []
        else:
            found = []
            # Claim messages that waited before first, however many new ones there are.
            for text in (POSTPONED, FRESH):
                left = limit - len(found)
                if left:
                    whole = f"{text}{wording.limit}{wording.skip_locked}"
                    found += statements.rows(whole, now=now, most=left)
        earlier = dict(sorted(found))
        keys = list(earlier)
        if not keys:
            return []
        if until > now:
            lease = LEASE.format(least=wording.least)
            statements.change(lease, keys=keys, until=until, token=token, most=MOST_TRIES)
        messages = self._messages.get_many(statements, keys)
        return [
            attrs.evolve(messages[key], claims=tries) if tries else messages[key]
            for key, tries in earlier.items()
            if key in messages
        ]

    def postpone(self, statements: Statements, message_ids: Iterable[str], until: int) -> None:
        """Postpone leased messages until the given time in microseconds."""
        if keys := sorted(_keys(message_ids)):
            statements.change(POSTPONE, keys=keys, until=until)

    def route(
        self,
        statements: Statements,
        routings: Sequence[Routing],
        lease: tuple[str, int] | None = None,
        *,
        careful: bool = True,
    ) -> None:
        """Insert deliveries of existing messages; skip existing deliveries.

        Args:
            statements: Runs the SQL, in a transaction.
            routings: The messages and their deliveries.
            lease: The token and the end in microseconds of the lease of deliveries in flight.
            careful: Compare with existing deliveries. Otherwise an existing one is a duplicate key.
        """
        asked = sorted(_keys(routing.message.id for routing in routings))
        if not asked:
            return
        # A routed message may get more deliveries; the lock on its own row then excludes others.
        here = locked(statements, WAITING, asked)
        if routed := [key for key in asked if key not in here]:
            here |= locked(statements, KEPT, routed)
        standing = [r for r in routings if message_key(r.message.id) in here]
        deliveries = [d for r in standing for d in r.deliveries]
        self._deliver(statements, deliveries, lease, careful=careful)
        if done := sorted(_keys(r.message.id for r in standing if r.complete)):
            statements.change(ROUTED, keys=done)

    def _deliver(
        self,
        statements: Statements,
        deliveries: Sequence[Delivery],
        lease: tuple[str, int] | None,
        *,
        careful: bool,
    ) -> None:
        targets = {d.subscription_id: d.target for d in deliveries}

        def find(ids: Sequence[str]) -> dict[str, Subscription]:
            stored = [id_ for id_ in ids if targets[id_] is None]
            found = {id_: target for id_, target in targets.items() if target is not None}
            return {**found, **self._subscriptions.get_many(statements, stored)}

        known = self._recipients.keys(statements, targets, find)
        made = {
            delivery_row(delivery): delivery
            for delivery in deliveries
            if delivery.subscription_id in known
        }
        rows = {row[0]: row for row in sorted(made)}
        if not rows:
            return
        there = set()
        if careful:
            there = {key for (key,) in statements.rows(THERE, keys=list(rows))}
        new = [row for key, row in rows.items() if key not in there]
        statements.insert_fast(DELIVERIES, new)
        pending = [(row[0], made[row]) for row in new if not made[row].state.finished]
        # Last, because all transactions compete for the rows of busy recipients.
        due = [(key, micros(delivery.due_at)) for key, delivery in pending]
        self._queue.add(statements, due, lease)

    def next_due(self, statements: Statements, now: int) -> int | None:
        """Return the earliest time (microseconds) at which another message may be claimable."""
        leased = NEXT_LEASED.format(limit=statements.wording.limit)
        times = (
            statements.first(NEXT_POSTPONED, now=now),
            statements.first(leased, now=now, most=LOOKED_AT),
        )
        found = (None if row is None else row[0] for row in times)
        return min((at for at in found if at is not None), default=None)

    def routed(self, statements: Statements, message_id: str) -> bool:
        """Return True if a message is routed completely or does not exist."""
        key = message_key(message_id)
        return key is None or not statements.rows(WAITING, keys=[key])


def locked(statements: Statements, text: str, keys: Collection[bytes]) -> set[bytes]:
    """Lock rows; return the keys of the existing ones."""
    whole = f"{text}{statements.wording.for_update}"
    return {key for (key,) in statements.rows(whole, keys=sorted(keys))} if keys else set()


def _keys(message_ids: Iterable[str]) -> dict[bytes, None]:
    """Return the keys of ids, each once, without invalid ids."""
    found = (message_key(id_) for id_ in message_ids)
    return dict.fromkeys(key for key in found if key is not None)
