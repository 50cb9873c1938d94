"""Claims: deliveries leased to workers, and how they end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import ReturningUpdate

from thorn_core import Claim, DeliveryState, Settlement, Subscription
from thorn_core.stores import queue_up, take_turns
from thorn_core.stores.rules import pauses
from thorn_sqlalchemy.messages import Messages
from thorn_sqlalchemy.recipients import Recipients
from thorn_sqlalchemy.rows import attempt_row, clean, delivery_of, micros, moment
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import Columns, chunks, first_of, inserting, one_of, updating
from thorn_sqlalchemy.subscriptions import Subscriptions

PENDING, IN_FLIGHT = DeliveryState.PENDING.value, DeliveryState.IN_FLIGHT.value


def delivery_range(message_id: str) -> tuple[str, str]:
    """Where the ids of a message's deliveries are: the first text, and the first one beyond."""
    start = f"dlv_{message_id.removeprefix('msg_')}"
    return start, start + "g"


# Leases taken back by one claim.
TAKEN_BACK = 1000


class Claims:
    """The table of deliveries, as workers see it.

    Args:
        tables: The tables.
        dialect: Name of the database.
        recipients: Whose turn it is.
        messages: Of which they are.
        subscriptions: To which they are.
    """

    def __init__(
        self,
        tables: Tables,
        dialect: str,
        recipients: Recipients,
        messages: Messages,
        subscriptions: Subscriptions,
    ) -> None:
        self._tables, self._dialect = tables, dialect
        self._recipients = recipients
        self._messages = messages
        self._subscriptions = subscriptions
        self._table = table = tables.deliveries
        self._made: dict[tuple[str, int], Select[Any]] = {}
        self._due = (table.c.ready_at <= bindparam("now"),)
        held = (table.c.state == IN_FLIGHT, table.c.token == bindparam("held"))
        self._expired = first_of(
            dialect,
            select(table.c.id, table.c.recipient)
            .where(table.c.leased_until <= bindparam("now"))
            .order_by(table.c.leased_until, table.c.id),
            "most",
        )
        self._lease: Update | ReturningUpdate[Any] = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"), table.c.ready_at.is_not(None))
            .values(
                state=IN_FLIGHT,
                ready_at=None,
                token=bindparam("lease"),
                leased_until=bindparam("until"),
            )
        )
        if dialect in ("postgresql", "sqlite"):
            self._lease = self._lease.returning(*table.c)
        self._leased = select(table).where(one_of(dialect, table.c.id, "keys"), *held)
        self._renew = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"), *held)
            .values(leased_until=bindparam("until"))
        )
        free = {
            "state": PENDING,
            "ready_at": table.c.due_at,
            "token": None,
            "leased_until": None,
        }
        self._take_back = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"), table.c.state == IN_FLIGHT)
            .values(free)
        )  # fmt: skip
        self._release = update(table).where(one_of(dialect, table.c.id, "keys"), *held).values(free)
        self._standing = (
            select(table.c.id, table.c.state, table.c.token)
            .where(one_of(dialect, table.c.id, "keys"))
            .order_by(table.c.id)
            .with_for_update()
        )
        self._count = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"))
            .values(attempt_count=table.c.attempt_count + 1)
        )
        self._settle = updating(
            dialect,
            table,
            {
                "key": table.c.id.type,
                "more": table.c.attempt_count.type,
                "becomes": table.c.state.type,
                "due": table.c.due_at.type,
                "settled": table.c.settled_at.type,
                "why": table.c.reason.type,
            },
            lambda row, given: row["id"] == given["key"],
            _changes,
        )
        attempts = tables.attempts
        self._known_attempts = select(attempts.c.id).where(one_of(dialect, attempts.c.id, "keys"))
        self._insert_attempts = inserting(dialect, attempts)

    # -- claim

    def claim(
        self,
        connection: Connection,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str,
        per_recipient: int,
        busy: Mapping[str, int],
        message_ids: Collection[str] | None,
    ) -> list[Claim]:
        """Lease what is due, recipients taking turns."""
        at = micros(now)
        self._take_back_expired(connection, at)
        full = [recipient for recipient, count in busy.items() if count >= per_recipient]
        if limit <= 0:
            return []
        if message_ids is None:
            turns = self._recipients.ready(connection, at, limit, full)
            room = {name: min(per_recipient - busy.get(name, 0), limit) for name in turns}
            queues = self._queues(connection, room, at, limit)
        else:
            turns = []
            keys = list(dict.fromkeys(message_ids))
            queues = self._queues_of(connection, keys, at, limit, per_recipient, busy, full)
        chosen = take_turns(queues, limit)
        claims = self._take(connection, chosen, token, micros(now + lease))
        if turns:
            self._recipients.served(connection, turns, at)
        return claims

    def _take_back_expired(self, connection: Connection, now: int) -> None:
        rows = connection.execute(self._expired, {"now": now, "most": TAKEN_BACK}).all()
        for some in chunks(rows):
            connection.execute(self._take_back, {"keys": sorted(row.id for row in some)})
        self._recipients.due(connection, ((row.recipient, now) for row in rows))

    def _queues(
        self, connection: Connection, room: Mapping[str, int], now: int, limit: int
    ) -> list[list[str]]:
        """The first due deliveries of each recipient, the oldest first."""
        if not room:
            return []
        # Enough to fill the claim even if most of them have nothing due.
        share = max(4 * limit // len(room), 1)
        sizes = {name: min(size, share) for name, size in room.items()}
        found: dict[str, list[str]] = {name: [] for name in room}
        if self._dialect == "postgresql":
            statement = self._made.get(("recipients", 0))
            if statement is None:
                statement = self._made["recipients", 0] = self._first_due_lateral()
            values: dict[str, Any] = {
                "now": now,
                "names": list(sizes),
                "sizes": list(sizes.values()),
            }
        else:
            statement = self._made.get(("recipients", len(sizes)))
            if statement is None:
                statement = self._first_due(len(sizes))
                self._made["recipients", len(sizes)] = statement
            values = {"now": now}
            for number, (name, size) in enumerate(sizes.items()):
                values[f"name{number}"] = name
                values[f"size{number}"] = size
        for key, recipient in connection.execute(statement, values).all():
            found[recipient].append(key)
        return list(found.values())

    def _first_due(self, terms: int) -> Select[Any]:
        table = self._table
        parts = []
        for number in range(terms):
            part = (
                select(table.c.id, table.c.recipient)
                .where(table.c.recipient == bindparam(f"name{number}"), *self._due)
                .order_by(table.c.ready_at, table.c.id)
                .limit(bindparam(f"size{number}"))
                .subquery()
            )
            parts.append(select(part.c.id, part.c.recipient))
        every = union_all(*parts).subquery()
        return select(every.c.id, every.c.recipient)

    def _first_due_lateral(self) -> Select[Any]:
        """As `_first_due`, in one wording for any number: planning a long union takes longer."""
        table = self._table
        texts = postgresql.ARRAY(table.c.recipient.type)
        given = (
            func.unnest(
                bindparam("names", type_=texts),
                bindparam("sizes", type_=postgresql.ARRAY(BigInteger)),
            )
            .table_valued("name", "size")
            .render_derived()
        )
        first = (
            select(table.c.id, table.c.recipient)
            .where(table.c.recipient == given.c.name, *self._due)
            .order_by(table.c.ready_at, table.c.id)
            .limit(given.c.size)
            .lateral()
        )
        return select(first.c.id, first.c.recipient).select_from(given.join(first, true()))

    def _queues_of(
        self,
        connection: Connection,
        message_ids: Sequence[str],
        now: int,
        limit: int,
        per_recipient: int,
        busy: Mapping[str, int],
        full: Sequence[str],
    ) -> list[list[str]]:
        """The due deliveries of some messages, by recipient."""
        due: list[tuple[str, str]] = []
        for some in chunks(message_ids, 50):
            values = {"now": now, "most": 4 * limit, "full": full, **self._ranges(some)}
            rows = connection.execute(self._due_of_messages(len(some)), values)
            due += [(row.id, row.recipient) for row in rows]
        return queue_up(due, per_recipient=per_recipient, busy=busy)

    def _ranges(self, message_ids: Sequence[str]) -> dict[str, Any]:
        """What to give `_due_of_messages`."""
        values: dict[str, Any] = {"keys": list(message_ids), "starts": [], "ends": []}
        for key in message_ids:
            start, end = delivery_range(key)
            values["starts"].append(start)
            values["ends"].append(end)
        if self._dialect == "postgresql":
            return values
        return {f"{n}{i}": value for n, some in values.items() for i, value in enumerate(some)}

    def _due_of_messages(self, terms: int) -> Select[Any]:
        """What is due of some messages, and not of recipients that are paused or full."""
        lateral = self._dialect == "postgresql"
        kept = ("messages", 0 if lateral else terms)
        if kept not in self._made:
            made = self._in_ranges_lateral() if lateral else self._in_ranges(terms)
            self._made[kept] = made.limit(bindparam("most"))
        return self._made[kept]

    def _in_ranges(self, terms: int) -> Select[Any]:
        table = self._table
        kind = table.c.id.type
        ranges = (
            and_(
                table.c.id >= bindparam(f"starts{number}", type_=kind),
                table.c.id < bindparam(f"ends{number}", type_=kind),
                table.c.message_id == bindparam(f"keys{number}", type_=kind),
            )
            for number in range(terms)
        )
        return self._not_held_up(or_(*ranges)).order_by(table.c.id)

    def _in_ranges_lateral(self) -> Select[Any]:
        """As `_in_ranges`, in one wording for any number: planning many ranges takes longer."""
        table = self._table
        texts = postgresql.ARRAY(table.c.id.type)
        names = ("keys", "starts", "ends")
        given = (
            func.unnest(*(bindparam(name, type_=texts) for name in names))
            .table_valued(*names)
            .render_derived()
        )
        in_range = and_(
            table.c.id >= given.c.starts,
            table.c.id < given.c.ends,
            table.c.message_id == given.c["keys"],
        )
        ordered = self._not_held_up(in_range).order_by(table.c.id)
        first = ordered.limit(bindparam("most")).lateral()
        found = select(first.c.id, first.c.recipient).select_from(given.join(first, true()))
        return found.order_by(first.c.id)

    def _not_held_up(self, condition: ColumnElement[bool]) -> Select[Any]:
        """What is due and meets a condition, but for recipients that are paused or full."""
        table, recipients = self._table, self._tables.recipients
        return (
            select(table.c.id, table.c.recipient)
            .outerjoin(recipients, recipients.c.recipient == table.c.recipient)
            .where(
                condition,
                *self._due,
                func.coalesce(recipients.c.paused_until, literal(0)) <= bindparam("now"),
                table.c.recipient.not_in(
                    bindparam("full", type_=table.c.recipient.type, expanding=True)
                ),
            )
        )

    def _take(
        self, connection: Connection, chosen: Sequence[str], token: str, until: int
    ) -> list[Claim]:
        """Lease these, as far as nobody else has meanwhile."""
        rows: dict[str, Any] = {}
        for keys in chunks(sorted(chosen)):
            lease = {"keys": keys, "lease": token, "until": until}
            leased = connection.execute(self._lease, lease)
            if not leased.returns_rows:
                leased = connection.execute(self._leased, {"keys": keys, "held": token})
            rows.update((row.id, row) for row in leased.all())
        deliveries = [delivery_of(rows[key]) for key in chosen if key in rows]
        messages = self._messages.of(connection, deliveries)
        subscriptions = self._subscriptions.get_many(
            connection, list({d.subscription_id for d in deliveries if d.target is None})
        )
        return [
            Claim(
                delivery=delivery,
                message=messages[delivery.message_id],
                subscription=delivery.target or subscriptions.get(delivery.subscription_id),
                token=token,
            )
            for delivery in deliveries
            if delivery.message_id in messages
        ]

    def next_due(self, connection: Connection, now: datetime) -> datetime | None:
        """When there may next be something that can't be claimed now."""
        table, at = self._table, micros(now)
        recipients, messages = self._tables.recipients, self._tables.messages
        times = (
            select(func.min(table.c.leased_until)),
            select(func.min(recipients.c.ready_at)),
            select(func.min(messages.c.route_at)).where(messages.c.route_at > 0),
        )
        found = [connection.execute(statement).scalar() for statement in times]
        return min((moment(max(time, at)) for time in found if time is not None), default=None)

    # -- keep, give back

    def renew(self, connection: Connection, claims: Sequence[Claim], until: datetime) -> None:
        """Make leases last until then."""
        for token, some in _by_token(claims).items():
            for keys in chunks(sorted(claim.delivery.id for claim in some)):
                values = {"keys": keys, "held": token, "until": micros(until)}
                connection.execute(self._renew, values)

    def release(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Give leases back unused."""
        for token, some in _by_token(claims).items():
            for keys in chunks(sorted(claim.delivery.id for claim in some)):
                connection.execute(self._release, {"keys": keys, "held": token})
        self._recipients.due(
            connection, ((c.delivery.recipient, micros(c.delivery.due_at)) for c in claims)
        )

    # -- settle

    def settle(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> list[Subscription]:
        """Write how claims ended; gives back the subscriptions that this disabled."""
        ordered = sorted(settlements, key=lambda settlement: settlement.claim.delivery.id)
        standing: dict[str, Any] = {}
        for some in chunks([settlement.claim.delivery.id for settlement in ordered]):
            for row in connection.execute(self._standing, {"keys": some}).all():
                standing[row.id] = row
        held: list[Settlement] = []
        late: list[Settlement] = []
        for settlement in ordered:
            found = standing.get(settlement.claim.delivery.id)
            if found is not None:
                mine = found.state == IN_FLIGHT and found.token == settlement.claim.token
                (held if mine else late).append(settlement)
        self._settle(connection, [_settled(settlement) for settlement in held])
        attempts = [s for s in held if s.attempt is not None]
        if late:
            attempts += self._count_late(connection, late)
        self._record(connection, attempts)
        self._recipients.due(
            connection,
            (
                (s.claim.delivery.recipient, micros(s.outcome.due_at or s.at))
                for s in held
                if s.outcome.state is DeliveryState.PENDING
            ),
        )
        self._recipients.pause(
            connection,
            ((recipient, micros(until)) for recipient, until in pauses(held)),
        )
        return self._subscriptions.judge(connection, held)

    def _count_late(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> list[Settlement]:
        """Count the attempts of those whose lease was over; gives back those not counted before.

        A settlement comes twice if it wasn't clear whether the first time was written.
        """
        made = {s.attempt.id: s for s in settlements if s.attempt is not None}
        for some in chunks(list(made)):
            for known in connection.execute(self._known_attempts, {"keys": some}).scalars():
                del made[known]
        for some in chunks(sorted(s.claim.delivery.id for s in made.values())):
            connection.execute(self._count, {"keys": some})
        return list(made.values())

    def _record(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        """Insert the attempts."""
        rows = [
            attempt_row(s.attempt, s.claim.delivery.recipient)
            for s in settlements
            if s.attempt is not None
        ]
        self._insert_attempts(connection, sorted(rows, key=itemgetter("id")))


def of_message(table: Any, message_id: str) -> Any:
    """True for the deliveries of a message."""
    start, end = delivery_range(message_id)
    return (table.c.id >= start) & (table.c.id < end) & (table.c.message_id == message_id)


def _by_token(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    grouped: dict[str, list[Claim]] = {}
    for claim in claims:
        grouped.setdefault(claim.token, []).append(claim)
    return grouped


def _settled(settlement: Settlement) -> dict[str, Any]:
    outcome, at = settlement.outcome, micros(settlement.at)
    pending = outcome.state is DeliveryState.PENDING
    due = micros(outcome.due_at) if outcome.due_at is not None else at
    return {
        "key": settlement.claim.delivery.id,
        "more": int(settlement.attempt is not None),
        "becomes": outcome.state.value,
        "due": due if pending else None,
        "settled": None if pending else at,
        "why": clean(outcome.reason),
    }


def _changes(row: Columns, given: Columns) -> Columns:
    return {
        "state": given["becomes"],
        "attempt_count": row["attempt_count"] + given["more"],
        "due_at": func.coalesce(given["due"], row["due_at"]),
        "settled_at": given["settled"],
        "reason": given["why"],
        "ready_at": given["due"],
        "token": null(),
        "leased_until": null(),
    }
