"""Messages: the outbox, and their routing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, select, update
from thorn_core import Message, Routing
from thorn_sqlalchemy.recipients import Recipients
from thorn_sqlalchemy.rows import delivery_row, message_of, message_row, micros
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import chunks, insert_new, one_of


class Messages:
    """The table of messages.

    Args:
        tables: The tables.
        dialect: Name of the database.
        recipients: Are told what is due.
    """

    def __init__(self, tables: Tables, dialect: str, recipients: Recipients) -> None:
        table, self._recipients = tables.messages, recipients
        self.insert: Insert = insert_new(dialect, table)
        self._insert_deliveries = insert_new(dialect, tables.deliveries)
        self._get = select(table).where(table.c.id == bindparam("key"))
        self._get_many = select(table).where(one_of(table.c.id, "keys"))
        self._state = select(table.c.route_at).where(table.c.id == bindparam("key"))
        self._route_at = (
            update(table)
            .where(one_of(table.c.id, "keys"))
            .values(route_at=bindparam("until"))
        )  # fmt: skip
        locked = select(table).with_for_update(skip_locked=True).limit(bindparam("most"))
        self._fresh = locked.where(table.c.route_at == 0).order_by(table.c.at, table.c.id)
        self._expired = locked.where(
            table.c.route_at > 0, table.c.route_at <= bindparam("now")
        ).order_by(table.c.route_at, table.c.at, table.c.id)
        self._named = locked.where(
            one_of(table.c.id, "keys"), table.c.route_at <= bindparam("now")
        ).order_by(table.c.at, table.c.id)

    def rows(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """What to give `insert`."""
        return [message_row(message) for message in messages]

    def claim(
        self,
        connection: Connection,
        now: datetime,
        lease: timedelta,
        limit: int,
        ids: Collection[str] | None,
    ) -> list[Message]:
        """Lease messages that aren't routed yet."""
        at = micros(now)
        if ids is None:
            rows = list(connection.execute(self._expired, {"now": at, "most": limit}))
            if len(rows) < limit:
                rows += connection.execute(self._fresh, {"most": limit - len(rows)})
        else:
            rows = []
            for some in chunks(list(ids)[:limit]):
                named = {"keys": some, "now": at, "most": limit}
                rows += connection.execute(self._named, named)
        for leased in chunks(rows):
            until = micros(now + lease)
            connection.execute(self._route_at, {"keys": [row.id for row in leased], "until": until})
        messages = [message_of(row) for row in rows]
        messages.sort(key=lambda message: (message.at, message.id))
        return messages

    def route(self, connection: Connection, routings: Sequence[Routing]) -> None:
        """Insert the deliveries of messages."""
        made = {d.id: d for routing in routings for d in routing.deliveries}
        if made:
            # In one order everywhere, so that no two wait for each other.
            rows = [delivery_row(made[key]) for key in sorted(made)]
            connection.execute(self._insert_deliveries, rows)
            self._recipients.due(connection, ((row["recipient"], row["due_at"]) for row in rows))
        done = sorted(routing.message.id for routing in routings if routing.complete)
        for some in chunks(done):
            connection.execute(self._route_at, {"keys": some, "until": None})

    def get(self, connection: Connection, message_id: str) -> Message | None:
        """The one of that id."""
        row = connection.execute(self._get, {"key": message_id}).first()
        return None if row is None else message_of(row)

    def get_many(self, connection: Connection, ids: Sequence[str]) -> dict[str, Message]:
        """Those of these ids, by id."""
        return {
            row.id: message_of(row)
            for some in chunks(ids)
            for row in connection.execute(self._get_many, {"keys": some})
        }

    def routed(self, connection: Connection, message_id: str) -> bool:
        """True if it has been routed completely, or isn't here."""
        row = connection.execute(self._state, {"key": message_id}).first()
        return row is None or row.route_at is None
