"""Messages: the outbox, and their routing."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Insert, bindparam, select, update

from thorn_core import Delivery, Message, Routing
from thorn_sqlalchemy.recipients import Recipients
from thorn_sqlalchemy.rows import delivery_row, message_of, message_row, micros
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import (
    chunks,
    first_of,
    insert_new,
    inserting,
    inserting_one,
    one_of,
)

# Messages kept for their deliveries, and bytes of their payloads.
REMEMBERED = 2000
REMEMBERED_BYTES = 8 * 1024 * 1024
REMEMBERED_FOR = timedelta(minutes=10)


class Messages:
    """The table of messages.

    Args:
        tables: The tables.
        dialect: Name of the database.
        recipients: Are told what is due.
    """

    def __init__(self, tables: Tables, dialect: str, recipients: Recipients) -> None:
        table, self._recipients = tables.messages, recipients
        self._lately: dict[str, Message] = {}
        self._size = 0
        self._lock = threading.Lock()
        self._insert_new: Insert = insert_new(dialect, table)
        self._insert_one = inserting_one(dialect, table)
        self._insert_deliveries = inserting(dialect, tables.deliveries)
        self._get = select(table).where(table.c.id == bindparam("key"))
        self._get_many = select(table).where(one_of(dialect, table.c.id, "keys"))
        self._state = select(table.c.route_at).where(table.c.id == bindparam("key"))
        self._route_at = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"))
            .values(route_at=bindparam("until"))
        )  # fmt: skip
        self._postpone = self._route_at.where(table.c.route_at > 0)
        fresh = select(table).where(table.c.route_at == 0).order_by(table.c.at, table.c.id)
        expired = (
            select(table)
            .where(table.c.route_at > 0, table.c.route_at <= bindparam("now"))
            .order_by(table.c.route_at, table.c.at, table.c.id)
        )
        self._fresh = first_of(dialect, fresh, "most")
        self._expired = first_of(dialect, expired, "most")
        self._named = (
            select(table)
            .where(one_of(dialect, table.c.id, "keys"), table.c.route_at <= bindparam("now"))
            .order_by(table.c.at, table.c.id)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
        )

    def insert(self, connection: Connection, messages: Sequence[Message]) -> list[str]:
        """Insert messages, and leave those as they are whose id is there.

        Returns:
            The ids of keyed ones that were there.
        """
        rows = [message_row(message) for message in messages if not message.keyed]
        if rows:
            connection.execute(self._insert_new, rows if len(rows) > 1 else rows[0])
        keyed = [message for message in messages if message.keyed]
        return [m.id for m in keyed if not self._insert_one(connection, message_row(m))]

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
            rows = list(connection.execute(self._expired, {"now": at, "most": limit}).all())
            if len(rows) < limit:
                rows += connection.execute(self._fresh, {"most": limit - len(rows)}).all()
        else:
            rows = []
            for some in chunks(list(ids)[:limit]):
                named = {"keys": some, "now": at, "most": limit}
                rows += connection.execute(self._named, named).all()
        for leased in chunks(rows):
            until = micros(now + lease)
            connection.execute(self._route_at, {"keys": [row.id for row in leased], "until": until})
        messages = [message_of(row) for row in rows]
        for message in messages:
            self._remember(message)
        messages.sort(key=lambda message: (message.at, message.id))
        return messages

    def route(self, connection: Connection, routings: Sequence[Routing]) -> None:
        """Insert the deliveries of messages."""
        made = {d.id: d for routing in routings for d in routing.deliveries}
        # In one order everywhere, so that no two wait for each other.
        rows = [delivery_row(made[key]) for key in sorted(made)]
        if rows:
            self._insert_deliveries(connection, rows)
        done = sorted(routing.message.id for routing in routings if routing.complete)
        for some in chunks(done):
            connection.execute(self._route_at, {"keys": some, "until": None})
        # Last, for everybody's messages meet at the rows of busy recipients.
        due = ((r["recipient"], r["ready_at"]) for r in rows if r["ready_at"] is not None)
        self._recipients.due(connection, due)

    def postpone(self, connection: Connection, message_ids: Sequence[str], until: datetime) -> None:
        """Leave messages that are leased for routing until then."""
        for some in chunks(sorted(message_ids)):
            connection.execute(self._postpone, {"keys": some, "until": micros(until)})

    def get(self, connection: Connection, message_id: str) -> Message | None:
        """The one of that id."""
        row = connection.execute(self._get, {"key": message_id}).first()
        return None if row is None else message_of(row)

    def of(self, connection: Connection, deliveries: Sequence[Delivery]) -> dict[str, Message]:
        """The messages of deliveries, by id."""
        found: dict[str, Message] = {}
        wanted: set[str] = set()
        for delivery in deliveries:
            message = self._lately.get(delivery.message_id)
            # An idempotency key's id may be another message's after the first was purged.
            if message is not None and delivery.created_at - message.at < REMEMBERED_FOR:
                found[message.id] = message
            else:
                wanted.add(delivery.message_id)
        for some in chunks(sorted(wanted)):
            for row in connection.execute(self._get_many, {"keys": some}).all():
                message = found[row.id] = message_of(row)
                self._remember(message)
        return found

    def _remember(self, message: Message) -> None:
        """Keep a message for its deliveries, which are claimed soon: it never changes."""
        with self._lock:
            former = self._lately.pop(message.id, None)
            self._size -= len(former.data) if former is not None else 0
            self._lately[message.id] = message
            self._size += len(message.data)
            while self._size > REMEMBERED_BYTES or len(self._lately) > REMEMBERED:
                oldest = self._lately.pop(next(iter(self._lately)))
                self._size -= len(oldest.data)

    def routed(self, connection: Connection, message_id: str) -> bool:
        """True if it has been routed completely, or isn't here."""
        row = connection.execute(self._state, {"key": message_id}).first()
        return row is None or row.route_at is None
