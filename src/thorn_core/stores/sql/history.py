"""History: deliveries and attempts, looked up, counted and replayed.

A page of deliveries goes by key, along an index: the primary key, that of one recipient's, or the
queue's if only what is pending or in flight is asked for. Their keys are found first, then all that
is shown of them, by primary keys: a page costs as much as it shows and what is left out of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from thorn_core.stores.base import DeliveryQuery
from thorn_core.stores.sql.rows import DELIVERY, FINISHED, STATES, attempt_of, delivery_of
from thorn_core.stores.sql.rows import OPEN as QUEUED
from thorn_core.stores.sql.schema import ATTEMPTS
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE, MYSQL
from thorn_core.values import Attempt, Delivery, DeliveryState

# Keys looked at in one statement where Python leaves some out.
SCAN = 1000
LAST = b"\xff" * (DELIVERY_KEY - MESSAGE_KEY)
OPEN = frozenset({DeliveryState.PENDING, DeliveryState.IN_FLIGHT})

# Where columns are in a row of these.
STATE, SUBSCRIPTION, LEASED_UNTIL, EVENT = 1, 7, 10, 12
SHOWN = f"SELECT {DELIVERY}, m.event FROM"
OF_DELIVERY = (
    " LEFT JOIN $messages m ON m.id = substr(d.id, 1, 16)"
    " LEFT JOIN $recipients r ON r.id = d.recipient LEFT JOIN $queue q ON q.id = d.id"
)
GET = f"{SHOWN} $deliveries d{OF_DELIVERY} WHERE d.id = :id.key"
GET_MANY = f"{SHOWN} $deliveries d{OF_DELIVERY} WHERE d.id IN (:ids.key*)"
PAGE = (
    f"{SHOWN} (SELECT k.id AS id FROM ${{source}} k WHERE {{conditions}} ORDER BY {{order}}"
    f"{{limit}}) p JOIN $deliveries d ON d.id = p.id{OF_DELIVERY} ORDER BY p.id{{direction}}"
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
        recipient: The key of the only recipient asked for.
        narrow: Criteria that no condition has: Python leaves out what doesn't meet them.
    """

    source: str
    conditions: tuple[str, ...]
    values: Mapping[str, Any]
    recipient: int | None
    narrow: DeliveryQuery | None


def search(statements: Statements, query: DeliveryQuery) -> Search | None:
    """Say how deliveries are found; None if there can be none."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    states = frozenset(DeliveryState if query.states is None else query.states)
    source = "queue" if states <= OPEN else "deliveries"
    recipient = None
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
    narrow = query if mixed or query.event is not None else None
    return Search(
        source=source,
        conditions=tuple(conditions) or ("1 = 1",),
        values=values,
        recipient=recipient,
        narrow=narrow,
    )


def scan(
    statements: Statements,
    query: DeliveryQuery,
    after: bytes | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[tuple[Any, ...]]:
    """The rows of deliveries that a query asks for, the first ones behind a key."""
    asked = search(statements, query)
    found: list[tuple[Any, ...]] = []
    while asked is not None and len(found) < limit:
        most = limit if asked.narrow is None else max(limit, SCAN)
        rows = _page(statements, asked, after, most, newest_first=newest_first)
        found += rows if asked.narrow is None else _meeting(rows, asked.narrow)
        if len(rows) < most:
            break
        after = rows[-1][0]
    return found[:limit]


def _page(
    statements: Statements, asked: Search, after: bytes | None, most: int, *, newest_first: bool
) -> list[tuple[Any, ...]]:
    conditions = list(asked.conditions)
    values = {**asked.values, "most": most}
    if after is not None:
        conditions.append(f"k.id {'<' if newest_first else '>'} :after.key")
        values["after"] = after
    direction = " DESC" if newest_first else ""
    order = f"k.id{direction}"
    wording = statements.wording
    if asked.recipient is not None and wording.dialect == MYSQL:
        order = f"k.recipient{direction}, {order}"
    text = PAGE.format(
        source=asked.source,
        conditions=" AND ".join(conditions),
        order=order,
        limit=wording.limit,
        direction=direction,
    )
    rows = statements.rows(text, **values)
    if len(asked.values.get("ids", ())) > LIST_SIZE:
        rows.sort(key=lambda row: row[0], reverse=newest_first)
    return rows[:most]


def _meeting(rows: Iterable[tuple[Any, ...]], query: DeliveryQuery) -> Iterator[tuple[Any, ...]]:
    """Of rows, those whose event and state a query asks for."""
    for row in filter(_whole, rows):
        in_state = query.states is None or _state(row) in query.states
        if in_state and (query.event is None or matches(query.event, row[EVENT])):
            yield row


def _state(row: Sequence[Any]) -> DeliveryState:
    if row[STATE] != QUEUED:
        return FINISHED[row[STATE]]
    return DeliveryState.PENDING if row[LEASED_UNTIL] is None else DeliveryState.IN_FLIGHT


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
        row = None if key is None else statements.first(GET, id=key)
        return next(iter(_deliveries([] if row is None else [row])), None)

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
        return _deliveries(scan(statements, query, key, limit, newest_first=newest_first))

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
        rows = scan(statements, query.only_settled(), None, limit)
        keys = lock_finished(statements, [row[0] for row in rows if _whole(row)])
        if not keys:
            return []
        statements.change(REOPEN, ids=keys)
        self._queue.add(statements, [(key, now) for key in keys])
        return _deliveries(sorted(statements.rows(GET_MANY, ids=keys)))

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
        rows = scan(statements, pending, None, limit)
        keys = self._queue.cancel(statements, [row[0] for row in rows], now, reason)
        return _deliveries(sorted(statements.rows(GET_MANY, ids=keys))) if keys else []


def lock_finished(statements: Statements, keys: Sequence[bytes]) -> list[bytes]:
    """Lock deliveries, and say which of them are finished still."""
    text = f"{LOCK_FINISHED}{statements.wording.for_update}"
    return [key for (key,) in statements.rows(text, ids=sorted(keys))] if keys else []


def _whole(row: Sequence[Any]) -> bool:
    """Whether a row has its message and its recipient: not while they are being removed."""
    return row[EVENT] is not None and row[SUBSCRIPTION] is not None


def _deliveries(rows: Iterable[Sequence[Any]]) -> list[Delivery]:
    return [delivery_of(row[:EVENT], row[EVENT]) for row in rows if _whole(row)]


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
