"""History: finds, counts and replays deliveries and attempts.

A first statement finds the keys (`searching`), a second one reads the rows by primary key. In a
single statement PostgreSQL would join whole tables, because it doesn't know the limit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import attrs

from thorn_core.keys import attempt_key, delivery_key
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.rows import DELIVERY, attempt_of, delivery_of
from thorn_core.stores.sql.schema import ATTEMPTS
from thorn_core.stores.sql.searching import count, find
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE
from thorn_core.values import Attempt, Delivery, DeliveryState

GET = (
    f"SELECT {DELIVERY}, m.event FROM $deliveries d"
    " JOIN $messages m ON m.id = substr(d.id, 1, 16)"
    " JOIN $recipients r ON r.id = d.recipient LEFT JOIN $queue q ON q.id = d.id"
    " WHERE d.id IN (:ids.key*)"
)
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
    """Holds waiting deliveries."""

    def add(self, statements: Statements, due: Sequence[tuple[bytes, int]]) -> None:
        """Add deliveries: their keys and due times in microseconds."""
        ...

    def cancel(
        self, statements: Statements, keys: Collection[bytes], now: int, reason: str
    ) -> list[bytes]:
        """Cancel deliveries that no worker has leased; return the cancelled ones."""
        ...


class History:
    """The tables of deliveries and attempts.

    Args:
        queue: Takes the replayed deliveries.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def delivery(self, statements: Statements, delivery_id: str) -> Delivery | None:
        """Return the delivery with this id, or None."""
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
        """Return a page of deliveries ordered by id, the order of their messages' times."""
        key = None if after is None else delivery_key(after)
        if after is not None and key is None:
            return []
        found: list[Delivery] = []
        # One pass, unless rows disappear between the two statements. A short page is the last one.
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
        """Return a page of the attempts of these deliveries."""
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
        """Count deliveries."""
        return count(statements, query)

    def replay(
        self, statements: Statements, query: DeliveryQuery, now: int, limit: int
    ) -> list[Delivery]:
        """Make finished deliveries pending again.

        Args:
            statements: Runs the SQL, in a transaction.
            query: Selects the deliveries.
            now: The current time in microseconds.
            limit: The maximum number.
        """
        keys = find(statements, query.only_finished(), None, limit)
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
            statements: Runs the SQL, in a transaction.
            query: Selects the deliveries.
            now: The current time in microseconds.
            limit: The maximum number.
            reason: The reason, in words for the subscription's owner.
        """
        if query.states is not None and DeliveryState.PENDING not in query.states:
            return []
        pending = attrs.evolve(query, states=(DeliveryState.PENDING,))
        found = find(statements, pending, None, limit)
        return _deliveries(statements, self._queue.cancel(statements, found, now, reason))


def lock_finished(statements: Statements, keys: Sequence[bytes]) -> list[bytes]:
    """Lock deliveries; return those that are still finished."""
    text = f"{LOCK_FINISHED}{statements.wording.for_update}"
    return [key for (key,) in statements.rows(text, ids=sorted(keys))] if keys else []


def _deliveries(statements: Statements, keys: Sequence[bytes]) -> list[Delivery]:
    """Return deliveries ordered by key, without those deleted meanwhile."""
    rows = {row[0]: row for row in statements.rows(GET, ids=keys)} if keys else {}
    return [delivery_of(row[:-1], row[-1]) for key in keys if (row := rows.get(key)) is not None]
