"""Messages: the outbox, and their routing."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from thorn_core import Delivery, Message, Routing
from thorn_django import models
from thorn_django.fields import EPOCH
from thorn_django.store import recipients
from thorn_django.store.rows import MESSAGE, delivery_row, message_of, message_row
from thorn_django.store.statements import chunks, first_keys, insert_new, insert_one

# Messages kept for their deliveries, and bytes of their payloads.
REMEMBERED = 2000
REMEMBERED_BYTES = 8 * 1024 * 1024
REMEMBERED_FOR = timedelta(minutes=10)


def rows(connection: BaseDatabaseWrapper) -> QuerySet[models.Message]:
    """The rows of a database."""
    return models.Message._base_manager.using(connection.alias)


def insert_messages(connection: BaseDatabaseWrapper, messages: Sequence[Message]) -> list[str]:
    """Insert messages, and leave those as they are whose id is there.

    Returns:
        The ids of keyed ones that were there.
    """
    insert_new(connection, models.Message, [message_row(m) for m in messages if not m.keyed])
    keyed = [message for message in messages if message.keyed]
    return [m.id for m in keyed if not insert_one(connection, models.Message, message_row(m))]


class Messages:
    """The table of messages."""

    def __init__(self) -> None:
        self._lately: dict[str, Message] = {}
        self._size = 0
        self._lock = threading.Lock()

    def claim(
        self,
        connection: BaseDatabaseWrapper,
        now: datetime,
        lease: timedelta,
        limit: int,
        ids: Collection[str] | None,
    ) -> list[Message]:
        """Lease messages that aren't routed yet."""
        unrouted = rows(connection)
        keys: list[str] = []
        if ids is None:
            expired = unrouted.filter(route_at__gt=EPOCH, route_at__lte=now)
            keys += first_keys(connection, expired.order_by("route_at", "at", "id"), limit)
            if len(keys) < limit:
                fresh = unrouted.filter(route_at=EPOCH).order_by("at", "id")
                keys += first_keys(connection, fresh, limit - len(keys))
        else:
            for some in chunks(list(ids)[:limit]):
                named = unrouted.filter(pk__in=some, route_at__lte=now).order_by("at", "id")
                keys += first_keys(connection, named, len(some))
        messages: list[Message] = []
        for some in chunks(keys):
            leased = unrouted.filter(pk__in=some)
            messages += [message_of(row) for row in leased.values(*MESSAGE)]
            leased.update(route_at=now + lease)
        for message in messages:
            self._remember(message)
        messages.sort(key=lambda message: (message.at, message.id))
        return messages

    def route(self, connection: BaseDatabaseWrapper, routings: Sequence[Routing]) -> None:
        """Insert the deliveries of messages."""
        made = {d.id: d for routing in routings for d in routing.deliveries}
        # In one order everywhere, so that no two wait for each other.
        deliveries = [made[key] for key in sorted(made)]
        insert_new(connection, models.Delivery, [delivery_row(d) for d in deliveries])
        done = sorted(routing.message.id for routing in routings if routing.complete)
        for some in chunks(done):
            rows(connection).filter(pk__in=some).update(route_at=None)
        # Last, for everybody's messages meet at the rows of busy recipients.
        open_ones = (d for d in deliveries if not d.state.settled)
        recipients.due(connection, ((d.recipient, d.due_at) for d in open_ones))

    def postpone(
        self, connection: BaseDatabaseWrapper, message_ids: Sequence[str], until: datetime
    ) -> None:
        """Leave messages that are leased for routing until then."""
        for some in chunks(sorted(message_ids)):
            rows(connection).filter(pk__in=some, route_at__gt=EPOCH).update(route_at=until)

    def get(self, connection: BaseDatabaseWrapper, message_id: str) -> Message | None:
        """The one of that id."""
        row = rows(connection).filter(pk=message_id).values(*MESSAGE).first()
        return None if row is None else message_of(row)

    def of(
        self, connection: BaseDatabaseWrapper, deliveries: Sequence[Delivery]
    ) -> dict[str, Message]:
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
            for row in rows(connection).filter(pk__in=some).values(*MESSAGE):
                message = found[row["id"]] = message_of(row)
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

    def state(self, connection: BaseDatabaseWrapper, message_id: str) -> bool | None:
        """True if it has been routed completely, False if not, None if it isn't here."""
        row = rows(connection).filter(pk=message_id).values_list("route_at").first()
        return None if row is None else row[0] is None
