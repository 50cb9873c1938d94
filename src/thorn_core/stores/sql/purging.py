"""Deletes finished deliveries by age, and all data about a sender.

After the last delivery of a routed message, the purge also deletes the message and its idempotency
key. The transaction locks the message's row before it searches for deliveries, so that no other
transaction creates new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from thorn_core.keys import DELIVERY_KEY, MESSAGE_KEY, first_key
from thorn_core.ports.tables import Column, Kind
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.history import lock_finished
from thorn_core.stores.sql.searching import LAST, find
from thorn_core.stores.sql.statements import Statements

# Limits of one transaction: messages of a sender, and their deliveries.
ERASED, ERASED_DELIVERIES = 128, 2048

_RANGE = (Column("first", Kind.KEY, MESSAGE_KEY), Column("last", Kind.KEY, DELIVERY_KEY))
OF_MESSAGE = (
    "SELECT d.id AS id FROM $deliveries d WHERE d.id >= v.first AND d.id <= v.last"
    " ORDER BY d.id{limit}"
)
FOLLOWING = "SELECT id FROM $messages WHERE id > :after.key{until} ORDER BY id"
UNTIL = " AND id < :until.key"
WAITING = "SELECT message_id FROM $outbox WHERE message_id IN (:ids.key*) ORDER BY message_id"
OF_SENDER = "SELECT id FROM $messages WHERE sender = :sender.name ORDER BY id"
LOCK = "SELECT id FROM $messages WHERE id IN (:ids.key*) ORDER BY id"

REMOVE_QUEUED = "DELETE FROM $queue WHERE id IN (:ids.key*)"
REMOVE_ATTEMPTS = "DELETE FROM $attempts WHERE delivery_id IN (:ids.key*)"
REMOVE_DELIVERIES = "DELETE FROM $deliveries WHERE id IN (:ids.key*)"
REMOVE_WAITING = "DELETE FROM $outbox WHERE message_id IN (:ids.key*)"
REMOVE_KEYS = "DELETE FROM $idempotency WHERE message_id IN (:ids.key*)"
REMOVE_MESSAGES = "DELETE FROM $messages WHERE id IN (:ids.key*)"


def purge(statements: Statements, query: DeliveryQuery, limit: int) -> int:
    """Delete finished deliveries with their attempts, and messages without deliveries.

    Args:
        statements: Runs the SQL, in a transaction.
        query: Selects the deliveries.
        limit: The maximum number of deliveries.

    Returns:
        The number of deleted deliveries.
    """
    keys = lock_finished(statements, find(statements, query.only_finished(), None, limit))
    if keys:
        statements.change(REMOVE_ATTEMPTS, ids=keys)
        statements.change(REMOVE_DELIVERIES, ids=keys)
        _remove_unreached(statements, {key[:MESSAGE_KEY] for key in keys})
    return len(keys)


def purge_unreached(
    statements: Statements, until: datetime | None, after: bytes | None, limit: int
) -> bytes | None:
    """Delete routed messages without deliveries, such as messages without subscribers.

    Args:
        statements: Runs the SQL, in a transaction.
        until: Delete only messages sent before this time.
        after: Examine only messages after this key.
        limit: The maximum number of messages to examine.

    Returns:
        The key of the last examined message for the next call; None at the end.
    """
    text = FOLLOWING.format(until="" if until is None else UNTIL)
    rows = statements.rows(
        f"{text}{statements.wording.limit}",
        after=after or b"",
        until=None if until is None else first_key(until),
        most=limit,
    )
    keys = [key for (key,) in rows]
    _remove_unreached(statements, keys)
    return keys[-1] if len(keys) == limit else None


def _remove_unreached(statements: Statements, keys: Iterable[bytes]) -> None:
    """Delete the routed messages without deliveries among the given ones."""
    asked = sorted(keys)
    if not asked:
        return
    locked = statements.rows(f"{LOCK}{statements.wording.for_update}", ids=asked)
    # A separate statement: with statistics of an empty outbox, PostgreSQL would read all of it for
    # each message.
    waiting = {key for (key,) in statements.rows(WAITING, ids=asked)}
    routed = [key for (key,) in locked if key not in waiting]
    reached = {key[:MESSAGE_KEY] for key in _deliveries_of(statements, routed, 1)}
    _remove_messages(statements, [key for key in routed if key not in reached])


def erase_all(database: Database, sender: str, limit: int) -> int:
    """Delete a sender's messages, in a transaction per batch: one may have very many deliveries.

    Args:
        database: The database.
        sender: The sender's id.
        limit: The maximum number of messages.

    Returns:
        The number of deleted messages.
    """
    gone = 0
    while gone < limit:
        done = database.run(partial(erase, sender=sender, limit=limit - gone))
        if done is None:
            break
        gone += done
    return gone


def erase(statements: Statements, sender: str, limit: int) -> int | None:
    """Delete messages of a sender with all related data, in any state.

    Args:
        statements: Runs the SQL, in a transaction. It deletes a limited number of deliveries: call
            it again.
        sender: The sender's id.
        limit: The maximum number of messages.

    Returns:
        The number of deleted messages; None if there was none.
    """
    first = f"{OF_SENDER}{statements.wording.limit}"
    messages = [key for (key,) in statements.rows(first, sender=sender, most=min(limit, ERASED))]
    if not messages:
        return None
    # First, so that no other transaction creates more deliveries of the messages.
    statements.change(REMOVE_WAITING, ids=messages)
    keys = _deliveries_of(statements, messages, ERASED_DELIVERIES // len(messages))
    if keys:
        statements.change(REMOVE_QUEUED, ids=keys)
        statements.change(REMOVE_ATTEMPTS, ids=keys)
        statements.change(REMOVE_DELIVERIES, ids=keys)
    statements.rows(f"{LOCK}{statements.wording.for_update}", ids=messages)
    left = {key[:MESSAGE_KEY] for key in _deliveries_of(statements, messages, 1)}
    done = [key for key in messages if key not in left]
    _remove_messages(statements, done)
    return len(done)


def _deliveries_of(statements: Statements, messages: Sequence[bytes], most: int) -> list[bytes]:
    """Return the keys of the first deliveries of each message."""
    ranges = [(key, key + LAST) for key in messages]
    text = OF_MESSAGE.format(limit=statements.wording.limit)
    return [key for (key,) in statements.for_each(text, _RANGE, ranges, most=most)]


def _remove_messages(statements: Statements, keys: Sequence[bytes]) -> None:
    if keys:
        statements.change(REMOVE_KEYS, ids=keys)
        statements.change(REMOVE_MESSAGES, ids=keys)
