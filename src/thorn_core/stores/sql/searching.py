"""Finds deliveries by key, along an index, from any position.

The index is the primary key, the index on recipient and key, or the queue's index if the query asks
for pending deliveries or those in flight. The cost of a page depends only on the keys it contains
and those that the query excludes from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from thorn_core.keys import (
    DELIVERY_KEY,
    MESSAGE_KEY,
    delivery_key,
    first_key,
    message_key,
    recipient_key,
)
from thorn_core.patterns import matches
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.rows import FINISHED, STATES
from thorn_core.stores.sql.rows import OPEN as WAITING
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE, MYSQL, POSTGRESQL
from thorn_core.values import DeliveryState

# The maximum number of keys per statement when Python filters them; the number grows up to it.
SCAN = 2000
# A suffix for a message's key: sorts after the keys of all its deliveries.
LAST = b"\xff" * (DELIVERY_KEY - MESSAGE_KEY)
# Sort before and after all keys.
LOWEST, HIGHEST = b"", b"\xff" * (DELIVERY_KEY + 1)
OPEN = frozenset({DeliveryState.PENDING, DeliveryState.IN_FLIGHT})

KEYS = "SELECT k.id FROM ${source} k WHERE {conditions} ORDER BY {order}{limit}"
STANDING = (
    "SELECT d.id, d.state, q.leased_until, m.event FROM $deliveries d"
    " JOIN $messages m ON m.id = substr(d.id, 1, 16) LEFT JOIN $queue q ON q.id = d.id"
    " WHERE d.id IN (:ids.key*)"
)
COUNT = "SELECT count(*) FROM ${source} k WHERE {conditions}"
COUNT_EVENTS = (
    "SELECT m.event, count(*) FROM ${source} k JOIN $messages m ON m.id = substr(k.id, 1, 16)"
    " WHERE {conditions} GROUP BY m.event"
)
MINE = "SELECT id FROM $recipients WHERE id = :id.big AND subscription_id = :subscription_id.name"
BETWEEN = ("k.id > :low.key", "k.id < :high.key")


@attrs.frozen(kw_only=True)
class Search:
    """A query of deliveries as conditions on keys.

    Attributes:
        source: The table with the index: `deliveries` or `queue`.
        low: All keys are above it.
        high: All keys are below it.
        recipient: The recipient's key, if the query is limited to one.
        conditions: Further conditions on the columns of the source, with the alias `k`.
        values: The parameters of the conditions.
        narrow: Whether the query has criteria beyond the conditions.
    """

    source: str
    low: bytes
    high: bytes
    recipient: int | None
    conditions: tuple[str, ...]
    values: Mapping[str, Any]
    narrow: bool


def search(statements: Statements, query: DeliveryQuery) -> Search | None:
    """Return the conditions for a query; None if no delivery can match."""
    states = frozenset(DeliveryState if query.states is None else query.states)
    source = "queue" if states <= OPEN else "deliveries"
    # No delivery has a message's key, so it doesn't matter whether a limit belongs to the range.
    low = LOWEST if query.since is None else first_key(query.since)
    high = HIGHEST if query.until is None else first_key(query.until)
    recipient = None
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if not states:
        return None
    if query.ids is not None:
        keys = {key for each in query.ids if (key := delivery_key(each)) is not None}
        if not keys:
            return None
        conditions.append("k.id IN (:ids.key*)")
        values["ids"] = sorted(keys)
    if query.message_id is not None:
        key = message_key(query.message_id)
        if key is None:
            return None
        low, high = max(low, key), min(high, key + LAST)
    if query.subscription_id is not None:
        recipient = recipient_key(query.subscription_id)
        mine = {"id": recipient, "subscription_id": query.subscription_id}
        if statements.first(MINE, **mine) is None:
            return None
    if source == "queue" and len(states) == 1:
        leased = DeliveryState.IN_FLIGHT in states
        conditions.append(f"k.leased_until IS {'NOT NULL' if leased else 'NULL'}")
    if source == "deliveries" and states != frozenset(DeliveryState):
        conditions.append("k.state IN (:states.small*)")
        values["states"] = sorted({STATES[state] for state in states})
    # The state alone doesn't distinguish pending deliveries from those in flight.
    mixed = source == "deliveries" and len(states & OPEN) == 1
    return Search(
        source=source,
        low=low,
        high=high,
        recipient=recipient,
        conditions=tuple(conditions),
        values=values,
        narrow=mixed or query.event is not None,
    )


def find(
    statements: Statements,
    query: DeliveryQuery,
    after: bytes | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[bytes]:
    """Return the first keys after a key of the deliveries that a query selects."""
    asked = search(statements, query)
    found: list[bytes] = []
    most = limit
    while asked is not None and len(found) < limit:
        if after is not None and newest_first:
            asked = attrs.evolve(asked, high=min(asked.high, after))
        elif after is not None:
            asked = attrs.evolve(asked, low=max(asked.low, after))
        if asked.narrow:
            most = max(limit, min(2 * most, SCAN))
        keys = _keys(statements, asked, most, newest_first=newest_first)
        found += _meeting(statements, keys, query) if asked.narrow else keys
        if len(keys) < most:
            break
        after = keys[-1]
    return found[:limit]


def _keys(statements: Statements, asked: Search, most: int, *, newest_first: bool) -> list[bytes]:
    conditions, by = _along(statements.wording.dialect, asked, newest_first=newest_first)
    text = KEYS.format(
        source=asked.source,
        conditions=" AND ".join((*conditions, *asked.conditions)),
        order=", ".join(f"k.{column}{' DESC' if newest_first else ''}" for column in by),
        limit=statements.wording.limit,
    )
    values = {**asked.values, "low": asked.low, "high": asked.high, "recipient": asked.recipient}
    keys = [key for (key,) in statements.rows(text, **values, most=most)]
    if len(asked.values.get("ids", ())) > LIST_SIZE:
        keys = sorted(keys, reverse=newest_first)
    return keys[:most]


def _along(
    dialect: str, asked: Search, *, newest_first: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the conditions and the order that make a database follow an index.

    With a simple `recipient = …`, PostgreSQL may scan the keys of all recipients, and MariaDB the
    recipient's keys from the beginning.
    """
    if asked.recipient is None:
        return BETWEEN, ("id",)
    if dialect == MYSQL:
        same = "k.recipient >= :recipient.big AND k.recipient <= :recipient.big"
        return (same, *BETWEEN), ("recipient", "id")
    if dialect == POSTGRESQL and asked.source == "deliveries":
        if newest_first:
            begin = "(k.recipient, k.id) < (:recipient.big, :high.key)"
            return (begin, "k.recipient >= :recipient.big", BETWEEN[0]), ("recipient", "id")
        begin = "(k.recipient, k.id) > (:recipient.big, :low.key)"
        return (begin, "k.recipient <= :recipient.big", BETWEEN[1]), ("recipient", "id")
    return ("k.recipient = :recipient.big", *BETWEEN), ("id",)


def _meeting(
    statements: Statements, keys: Sequence[bytes], query: DeliveryQuery
) -> Iterator[bytes]:
    """Return the keys of deliveries whose event and state match the query, in the same order."""
    standing = {row[0]: row[1:] for row in statements.rows(STANDING, ids=keys)} if keys else {}
    for key in keys:
        if key not in standing:
            continue
        state, leased_until, event = standing[key]
        in_state = query.states is None or _state(state, leased_until) in query.states
        if in_state and (query.event is None or matches(query.event, event)):
            yield key


def _state(code: int, leased_until: int | None) -> DeliveryState:
    if code != WAITING:
        return FINISHED[code]
    return DeliveryState.PENDING if leased_until is None else DeliveryState.IN_FLIGHT


def count(statements: Statements, query: DeliveryQuery) -> int:
    """Count deliveries."""
    states = frozenset(DeliveryState if query.states is None else query.states)
    if query.states is None or states <= OPEN or not states & OPEN:
        return _count(statements, query)
    # Only the queue distinguishes pending deliveries from those in flight.
    parts = (tuple(states & OPEN), tuple(states - OPEN))
    return sum(_count(statements, attrs.evolve(query, states=part)) for part in parts)


def _count(statements: Statements, query: DeliveryQuery) -> int:
    asked = search(statements, query)
    if asked is None:
        return 0
    mine = () if asked.recipient is None else ("k.recipient = :recipient.big",)
    conditions = " AND ".join((*mine, *BETWEEN, *asked.conditions))
    text = (COUNT if query.event is None else COUNT_EVENTS).format(
        source=asked.source, conditions=conditions
    )
    values = {**asked.values, "low": asked.low, "high": asked.high, "recipient": asked.recipient}
    rows = statements.rows(text, **values)
    if query.event is None:
        return sum(many for (many,) in rows)
    return sum(many for event, many in rows if matches(query.event, event))
