"""The queue: pending and leased deliveries.

A delivery has a row here while it is pending or in flight. The row is free, or leased with a token
until a time. A lease doesn't move the row in the order of due deliveries, so an expired lease needs
no clean-up: the next claim finds the row at the front.

Transactions lock rows by ascending key, and tables in the order outbox, queue, deliveries,
subscriptions, recipients. A claim begins with recipients, and never waits while it holds a lock.
The lock on a queue row permits changes of its delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from thorn_core.keys import MESSAGE_KEY, message_key, recipient_key, recipient_of
from thorn_core.ports.tables import Column
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.rows import (
    CANCELLED,
    DELIVERY,
    clean,
    delivery_of,
    key_of_delivery,
    micros,
)
from thorn_core.stores.sql.schema import (
    BIG,
    DELIVERY_KEY,
    INT,
    KEY,
    QUEUE,
)
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE
from thorn_core.stores.turns import queue_up, take_turns
from thorn_core.values import Claim, Message, Subscription

# The maximum number of messages in one statement.
RANGES = 64

_FREE = "q.due_at <= :now.big AND (q.leased_until IS NULL OR q.leased_until <= :now.big)"
FIRST = (
    f"SELECT q.id, q.recipient FROM $queue q WHERE q.recipient = v.recipient AND {_FREE}"
    " ORDER BY q.due_at, q.id"
)
_RECIPIENT = (Column("recipient", BIG), Column("most", INT))
# A left join with the effect of an inner join: with an inner join, PostgreSQL would begin with the
# recipients and read the backlog of each.
OF_MESSAGE = (
    "SELECT q.id, q.recipient FROM $queue q LEFT JOIN $recipients r ON r.id = q.recipient"
    f" WHERE q.id >= v.lowest AND q.id <= v.highest AND {_FREE}"
    " AND coalesce(r.paused, 0) = 0 AND coalesce(r.blocked_until, 0) <= :now.big{others}"
)
OTHERS = " AND q.recipient NOT IN (:full.big*)"
_RANGE = (Column("lowest", KEY, DELIVERY_KEY), Column("highest", KEY, DELIVERY_KEY), _RECIPIENT[1])
TAKE = f"SELECT q.id FROM $queue q WHERE q.id IN (:keys.key*) AND {_FREE}"
LEASE = "UPDATE $queue SET token = :token.name, leased_until = :until.big WHERE id IN (:keys.key*)"
STANDING = "SELECT id, token FROM $queue WHERE id IN (:keys.key*) ORDER BY id"
RENEW = "UPDATE $queue SET leased_until = :until.big WHERE id IN (:keys.key*)"
RELEASE = "UPDATE $queue SET token = NULL, leased_until = NULL WHERE id IN (:keys.key*)"
REMOVE = "DELETE FROM $queue WHERE id IN (:keys.key*)"
WAITING = (
    "SELECT q.id FROM $queue q WHERE q.recipient = :recipient.big"
    " AND (q.leased_until IS NULL OR q.leased_until <= :now.big) ORDER BY q.due_at, q.id"
)
STILL_WAITING = (
    "SELECT q.id FROM $queue q WHERE q.id IN (:keys.key*)"
    " AND (q.leased_until IS NULL OR q.leased_until <= :now.big) ORDER BY q.id"
)

READ = (
    f"SELECT {DELIVERY} FROM $queue q JOIN $deliveries d ON d.id = q.id"
    " JOIN $recipients r ON r.id = q.recipient WHERE q.id IN (:keys.key*)"
)
CANCEL = (
    "UPDATE $deliveries SET state = :state.small, finished_at = :now.big, reason = :reason.text"
    " WHERE id IN (:keys.key*)"
)


class Messages(Protocol):
    """Holds the messages of deliveries."""

    def get_many(self, statements: Statements, keys: Collection[bytes]) -> Mapping[bytes, Message]:
        """Return messages by key."""
        ...


class Subscriptions(Protocol):
    """Holds subscriptions and applies the results of attempts to them."""

    def get_many(self, statements: Statements, ids: Collection[str]) -> Mapping[str, Subscription]:
        """Return subscriptions by id."""
        ...


class Queue:
    """The table of pending and leased deliveries.

    Args:
        recipients: Decides whose turn it is.
        messages: Holds the deliveries' messages.
        subscriptions: Holds the deliveries' subscriptions.
    """

    def __init__(
        self, recipients: Recipients, messages: Messages, subscriptions: Subscriptions
    ) -> None:
        self._recipients = recipients
        self._messages, self._subscriptions = messages, subscriptions

    def add(
        self,
        statements: Statements,
        due: Sequence[tuple[bytes, int]],
        lease: tuple[str, int] | None = None,
    ) -> None:
        """Insert pending deliveries; skip existing rows.

        Args:
            statements: Runs the SQL, in the transaction that created or reopened the deliveries.
            due: Keys and due times in microseconds. The recipients must have rows.
            lease: The token and the end in microseconds of the lease of deliveries in flight.
        """
        token, until = lease or (None, None)
        rows = [(key, recipient_of(key), at, 0, until, token, None, None) for key, at in due]
        statements.insert(QUEUE, sorted(rows), ignoring=True, own=True)
        times = ((recipient_of(key), at if until is None else until) for key, at in due)
        self._recipients.due(statements, times)

    # -- claim

    def claim(
        self,
        statements: Statements,
        *,
        now: int,
        until: int,
        limit: int,
        token: str,
        per_recipient: int,
        busy: Mapping[str, int],
        message_ids: Collection[str] | None = None,
    ) -> list[Claim]:
        """Lease due deliveries; recipients take turns.

        Args:
            statements: Runs the SQL, in a transaction.
            now: The current time in microseconds.
            until: The end of the lease in microseconds.
            limit: The maximum number.
            token: Identifies the lease.
            per_recipient: The maximum number of deliveries in flight to a recipient.
            busy: The number of deliveries in flight by subscription id.
            message_ids: Restricts the choice to these messages.
        """
        if limit <= 0:
            return []
        under_way = {recipient_key(id_): number for id_, number in busy.items()}
        if message_ids is not None:
            queues = self._of_messages(
                statements, message_ids, now, limit, per_recipient, under_way
            )
            chosen = take_turns(queues, limit)
            return self._lease(statements, chosen, now, until, token)
        full = [key for key, number in under_way.items() if number >= per_recipient]
        turns = self._recipients.ready(statements, now, limit, full)
        room = {
            key: min(left, limit)
            for key in turns
            if (left := per_recipient - under_way.get(key, 0)) > 0
        }
        found = _first(statements, room, now, limit)
        chosen = take_turns([keys[: room[key]] for key, keys in found.items()], limit)
        claims = self._lease(statements, chosen, now, until, token)
        got = dict.fromkeys(room, 0)
        for claim in claims:
            got[recipient_key(claim.delivery.subscription_id)] += 1
        more = {key: len(found[key]) > number for key, number in got.items()}
        self._recipients.served(statements, more, now)
        return claims

    def _of_messages(
        self,
        statements: Statements,
        message_ids: Collection[str],
        now: int,
        limit: int,
        per_recipient: int,
        under_way: Mapping[int, int],
    ) -> list[list[bytes]]:
        """Return the due deliveries of some messages by recipient, without paused recipients."""
        keys = sorted({key for id_ in message_ids if (key := message_key(id_)) is not None})
        full = [key for key, number in under_way.items() if number >= per_recipient]
        text = OF_MESSAGE.format(others=OTHERS if full else "")
        text += statements.wording.limit_to("v.most")
        values: dict[str, Any] = {"full": full[:LIST_SIZE]} if full else {}
        # A message has one delivery per recipient, so the number of messages is a sufficient limit.
        ranges = [(key + bytes(8), key + b"\xff" * 8, limit) for key in keys]
        due: list[tuple[bytes, int]] = []
        for start in range(0, len(ranges), RANGES):
            some = ranges[start : start + RANGES]
            due += sorted(statements.for_each(text, _RANGE, some, now=now, **values))
            if len(due) >= 4 * limit:
                break
        return queue_up(due, per_recipient=per_recipient, busy=under_way)

    def _lease(
        self, statements: Statements, chosen: Sequence[bytes], now: int, until: int, token: str
    ) -> list[Claim]:
        """Lease those deliveries that no other transaction has leased meanwhile."""
        if not chosen:
            return []
        take = f"{TAKE}{statements.wording.skip_locked}"
        keys = sorted(key for (key,) in statements.rows(take, keys=sorted(chosen), now=now))
        if not keys:
            return []
        statements.change(LEASE, keys=keys, token=token, until=until)
        rows = {row[0]: row for row in statements.rows(READ, keys=keys)}
        self._recipients.remember((recipient_of(key), row[7]) for key, row in rows.items())
        messages = self._messages.get_many(statements, {_message_of(key) for key in keys})
        deliveries = {
            key: delivery_of(rows[key], messages[_message_of(key)].event)
            for key in chosen
            if key in rows and _message_of(key) in messages
        }
        subscriptions = self._subscriptions.get_many(
            statements, {d.subscription_id for d in deliveries.values() if d.target is None}
        )
        return [
            Claim(
                delivery=delivery,
                message=messages[_message_of(key)],
                subscription=delivery.target or subscriptions.get(delivery.subscription_id),
                token=token,
            )
            for key, delivery in deliveries.items()
        ]

    def next_due(self, statements: Statements) -> int | None:
        """Return the earliest time (microseconds) at which work may be claimable, or None."""
        return self._recipients.next_due(statements)

    # -- leases

    def renew(self, statements: Statements, claims: Iterable[Claim], until: int) -> None:
        """Extend valid leases until the given time in microseconds."""
        if held := _held(statements, claims):
            statements.change(RENEW, keys=list(held), until=until)

    def release(self, statements: Statements, claims: Iterable[Claim]) -> None:
        """Release valid leases without an attempt."""
        if held := _held(statements, claims):
            statements.change(RELEASE, keys=list(held))
            due = ((recipient_of(key), micros(c.delivery.due_at)) for key, c in held.items())
            self._recipients.due(statements, due)

    # -- waiting deliveries

    def waiting(
        self, statements: Statements, subscription_id: str, now: int, limit: int
    ) -> list[bytes]:
        """Return the first deliveries to a subscription that no worker has leased.

        Args:
            statements: Runs the SQL, on a reading connection or in a transaction.
            subscription_id: The subscription's id.
            now: The current time in microseconds.
            limit: The maximum number.
        """
        recipient = recipient_key(subscription_id)
        text = f"{WAITING}{statements.wording.limit}"
        found = statements.rows(text, recipient=recipient, now=now, most=limit)
        return [key for (key,) in found]

    def cancel(
        self, statements: Statements, keys: Collection[bytes], now: int, reason: str
    ) -> list[bytes]:
        """Cancel deliveries that no worker has leased.

        Args:
            statements: Runs the SQL, in a transaction.
            keys: The deliveries' keys.
            now: The current time in microseconds.
            reason: The reason, in words for the subscription's owner.

        Returns:
            The keys of the cancelled deliveries.
        """
        lock = f"{STILL_WAITING}{statements.wording.for_update}"
        asked = sorted(keys)
        found = [key for (key,) in statements.rows(lock, keys=asked, now=now)] if asked else []
        if found:
            statements.change(CANCEL, keys=found, state=CANCELLED, now=now, reason=clean(reason))
            statements.change(REMOVE, keys=found)
        return found


def _first(
    statements: Statements, room: Mapping[int, int], now: int, limit: int
) -> dict[int, list[bytes]]:
    """Return the oldest due deliveries of each recipient, up to one above its limit."""
    if not room:
        return {}
    # Enough to fill the claim even if most recipients have nothing due.
    share = max(4 * limit // len(room), 1)
    sizes = [(key, min(size, share) + 1) for key, size in room.items()]
    found: dict[int, list[bytes]] = {key: [] for key in room}
    text = f"{FIRST}{statements.wording.limit_to('v.most')}"
    for key, recipient in statements.for_each(text, _RECIPIENT, sizes, now=now):
        found[recipient].append(key)
    return found


def standing(statements: Statements, keys: Collection[bytes]) -> list[tuple[bytes, str | None]]:
    """Lock rows; return their tokens."""
    lock = f"{STANDING}{statements.wording.for_update}"
    return statements.rows(lock, keys=sorted(keys)) if keys else []


def _held(statements: Statements, claims: Iterable[Claim]) -> dict[bytes, Claim]:
    """Lock the rows of the claims; return the claims with valid leases."""
    by_key = {_key_of(claim): claim for claim in claims}
    tokens = standing(statements, by_key)
    return {key: by_key[key] for key, token in tokens if token == by_key[key].token}


def _key_of(claim: Claim) -> bytes:
    return key_of_delivery(claim.delivery.id)


def _message_of(key: bytes) -> bytes:
    return key[:MESSAGE_KEY]
