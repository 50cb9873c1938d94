"""History: deliveries and attempts, looked up, counted and replayed.

A page of deliveries goes by key, along an index: the primary key, that of one recipient's, or the
queue's if only what is pending or in flight is asked for. Keys are found first, then all that is
shown, by primary keys: a page costs as much as it shows and what is left out of it. In one
statement PostgreSQL, which doesn't know the limit, would join whole tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from thorn_core.keys import (
    DELIVERY_KEY,
    MESSAGE_KEY,
    attempt_key,
    delivery_key,
    first_key,
    message_key,
    recipient_key,
)
from thorn_core.patterns import matches
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.rows import DELIVERY, FINISHED, STATES, attempt_of, delivery_of
from thorn_core.stores.sql.rows import OPEN as WAITING
from thorn_core.stores.sql.schema import ATTEMPTS
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE, MYSQL
from thorn_core.values import Attempt, Delivery, DeliveryState

# Keys looked at in one statement where Python leaves some out: more and more, up to this.
SCAN = 2000
LAST = b"\xff" * (DELIVERY_KEY - MESSAGE_KEY)
OPEN = frozenset({DeliveryState.PENDING, DeliveryState.IN_FLIGHT})

OF_DELIVERY = (
    " FROM $deliveries d JOIN $messages m ON m.id = substr(d.id, 1, 16)"
    " JOIN $recipients r ON r.id = d.recipient LEFT JOIN $queue q ON q.id = d.id"
)
GET = f"SELECT {DELIVERY}, m.event{OF_DELIVERY} WHERE d.id IN (:ids.key*)"
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
ATTEMPT = ", ".join(ATTEMPTS.names)
ATTEMPTS_OF = (
    f"SELECT {ATTEMPT} FROM $attempts WHERE delivery_id IN (:keys.key*){{behind}}"
    " ORDER BY delivery_id, at LIMIT :most.int"
)
BEHIND = " AND (delivery_id > :key.key OR at > :at.big)"
LOCK_FINISHED = "SELECT id FROM $deliveries WHERE id IN (:ids.key*) AND state <> 0 ORDER BY id"
REOPEN = (
    "UPDATE $deliveries SET state = 0, finished_at = NULL, reason = NULL WHERE id IN (:ids.key*)"
)


class Queue(Protocol):
    """Where deliveries wait."""

    def add(self, statements: Statements, due: Sequence[tuple[bytes, int]]) -> None:
        """Let deliveries wait: their keys, and microseconds until when."""
        ...

    def cancel(
        self, statements: Statements, keys: Collection[bytes], now: int, reason: str
    ) -> list[bytes]:
        """Cancel deliveries that nobody has leased; gives those that were cancelled."""
        ...


@attrs.frozen(kw_only=True)
class Search:
    """A query of deliveries as conditions on keys.

    Attributes:
        source: The table whose index is read: `deliveries` or `queue`.
        conditions: On its columns, by the name `k`.
        values: Their parameters.
        order: The columns that pages go by.
        narrow: Whether there are criteria that no condition has.
    """

    source: str
    conditions: tuple[str, ...]
    values: Mapping[str, Any]
    order: tuple[str, ...]
    narrow: bool


def search(statements: Statements, query: DeliveryQuery) -> Search | None:
    """Say how deliveries are found; None if there can be none."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    states = frozenset(DeliveryState if query.states is None else query.states)
    source = "queue" if states <= OPEN else "deliveries"
    order: tuple[str, ...] = ("id",)
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
        conditions.append("k.id >= :first.key AND k.id <= :last.key")
        values |= {"first": key, "last": key + LAST}
    if query.subscription_id is not None:
        recipient = recipient_key(query.subscription_id)
        mine = {"id": recipient, "subscription_id": query.subscription_id}
        if statements.first(MINE, **mine) is None:
            return None
        # By range, of equal ends: told that it equals one value, MariaDB goes through all of that
        # recipient's keys, wherever a page begins.
        same = "k.recipient >= :recipient.big AND k.recipient <= :recipient.big"
        mysql = statements.wording.dialect == MYSQL
        conditions.append(same if mysql else "k.recipient = :recipient.big")
        order = ("recipient", "id") if mysql else order
        values["recipient"] = recipient
    if query.since is not None:
        conditions.append("k.id >= :since.key")
        values["since"] = first_key(query.since)
    if query.until is not None:
        conditions.append("k.id < :until.key")
        values["until"] = first_key(query.until)
    if source == "queue" and len(states) == 1:
        leased = DeliveryState.IN_FLIGHT in states
        conditions.append(f"k.leased_until IS {'NOT NULL' if leased else 'NULL'}")
    if source == "deliveries" and states != frozenset(DeliveryState):
        conditions.append("k.state IN (:states.small*)")
        values["states"] = sorted({STATES[state] for state in states})
    # A row's state alone doesn't tell what is pending from what is in flight.
    mixed = source == "deliveries" and len(states & OPEN) == 1
    return Search(
        source=source,
        conditions=tuple(conditions) or ("1 = 1",),
        values=values,
        order=order,
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
    """The keys of deliveries that a query asks for, the first ones behind a key."""
    asked = search(statements, query)
    found: list[bytes] = []
    most = limit
    while asked is not None and len(found) < limit:
        if asked.narrow:
            most = max(limit, min(2 * most, SCAN))
        keys = _keys(statements, asked, after, most, newest_first=newest_first)
        found += _meeting(statements, keys, query) if asked.narrow else keys
        if len(keys) < most:
            break
        after = keys[-1]
    return found[:limit]


def _keys(
    statements: Statements, asked: Search, after: bytes | None, most: int, *, newest_first: bool
) -> list[bytes]:
    conditions, values = list(asked.conditions), {**asked.values, "most": most}
    if after is not None:
        conditions.append(f"k.id {'<' if newest_first else '>'} :after.key")
        values["after"] = after
    direction = " DESC" if newest_first else ""
    text = KEYS.format(
        source=asked.source,
        conditions=" AND ".join(conditions),
        order=", ".join(f"k.{column}{direction}" for column in asked.order),
        limit=statements.wording.limit,
    )
    keys = [key for (key,) in statements.rows(text, **values)]
    if len(asked.values.get("ids", ())) > LIST_SIZE:
        keys = sorted(keys, reverse=newest_first)
    return keys[:most]


def _meeting(
    statements: Statements, keys: Sequence[bytes], query: DeliveryQuery
) -> Iterator[bytes]:
    """Of keys, those whose event and state a query asks for, in the same order."""
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


class History:
    """The tables of deliveries and attempts, as people see them.

    Args:
        queue: Gets what is replayed.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def delivery(self, statements: Statements, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        key = delivery_key(delivery_id)
        return next(iter(_deliveries(statements, [] if key is None else [key])), None)

    def deliveries(
        self,
        statements: Statements,
        query: DeliveryQuery,
        after: str | None,
        limit: int,
        *,
        newest_first: bool = False,
    ) -> list[Delivery]:
        """A page of deliveries in the order of ids, which is that of their messages' times."""
        key = None if after is None else delivery_key(after)
        if after is not None and key is None:
            return []
        found: list[Delivery] = []
        # Once, but for what is removed between looking for it and at it: a short page is the last.
        while len(found) < limit:
            most = limit - len(found)
            keys = find(statements, query, key, most, newest_first=newest_first)
            found += _deliveries(statements, keys)
            if len(keys) < most:
                break
            key = keys[-1]
        return found

    def attempts(
        self, statements: Statements, delivery_ids: Sequence[str], after: str | None, limit: int
    ) -> list[Attempt]:
        """A page of the attempts of these deliveries."""
        behind = None if after is None else attempt_key(after)
        if after is not None and behind is None:
            return []
        keys = sorted({key for each in delivery_ids if (key := delivery_key(each)) is not None})
        values: dict[str, Any] = {}
        if behind is not None:
            keys = [key for key in keys if key >= behind[0]]
            values = {"key": behind[0], "at": behind[1]}
        text = ATTEMPTS_OF.format(behind=BEHIND if behind else "")
        found: list[Attempt] = []
        for start in range(0, len(keys), LIST_SIZE):
            some, most = keys[start : start + LIST_SIZE], limit - len(found)
            found += map(attempt_of, statements.rows(text, keys=some, most=most, **values))
            if len(found) >= limit:
                break
        return found

    def count(self, statements: Statements, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        states = frozenset(DeliveryState if query.states is None else query.states)
        if query.states is None or states <= OPEN or not states & OPEN:
            return _count(statements, query)
        # What is pending and what is in flight is told apart by the queue.
        parts = (tuple(states & OPEN), tuple(states - OPEN))
        return sum(_count(statements, attrs.evolve(query, states=part)) for part in parts)

    def replay(
        self, statements: Statements, query: DeliveryQuery, now: int, limit: int
    ) -> list[Delivery]:
        """Make finished deliveries pending again.

        Args:
            statements: In a transaction.
            query: Which.
            now: Microseconds.
            limit: How many at most.
        """
        keys = find(statements, query.only_settled(), None, limit)
        locked = lock_finished(statements, keys)
        if not locked:
            return []
        statements.change(REOPEN, ids=locked)
        self._queue.add(statements, [(key, now) for key in locked])
        return _deliveries(statements, locked)

    def cancel(
        self, statements: Statements, query: DeliveryQuery, now: int, limit: int, reason: str
    ) -> list[Delivery]:
        """Cancel pending deliveries.

        Args:
            statements: In a transaction.
            query: Which.
            now: Microseconds.
            limit: How many at most.
            reason: Why, in words that the subscription's owner may read.
        """
        if query.states is not None and DeliveryState.PENDING not in query.states:
            return []
        pending = attrs.evolve(query, states=(DeliveryState.PENDING,))
        found = find(statements, pending, None, limit)
        return _deliveries(statements, self._queue.cancel(statements, found, now, reason))


def lock_finished(statements: Statements, keys: Sequence[bytes]) -> list[bytes]:
    """Lock deliveries, and say which of them are finished still."""
    text = f"{LOCK_FINISHED}{statements.wording.for_update}"
    return [key for (key,) in statements.rows(text, ids=sorted(keys))] if keys else []


def _deliveries(statements: Statements, keys: Sequence[bytes]) -> list[Delivery]:
    """Deliveries in the order of their keys, but for those that are being removed."""
    rows = {row[0]: row for row in statements.rows(GET, ids=keys)} if keys else {}
    return [delivery_of(row[:-1], row[-1]) for key in keys if (row := rows.get(key)) is not None]


def _count(statements: Statements, query: DeliveryQuery) -> int:
    asked = search(statements, query)
    if asked is None:
        return 0
    text = COUNT if query.event is None else COUNT_EVENTS
    conditions = " AND ".join(asked.conditions)
    rows = statements.rows(text.format(source=asked.source, conditions=conditions), **asked.values)
    if query.event is None:
        return sum(many for (many,) in rows)
    return sum(many for event, many in rows if matches(query.event, event))
