"""History: what has become of deliveries; replaying, purging, counting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)

from thorn_core import Attempt, Delivery, DeliveryQuery, DeliveryState, Period, Stats
from thorn_core.patterns import matches
from thorn_core.stores import BUSIEST, STEPS, Periods, percentiles
from thorn_sqlalchemy.claims import of_message
from thorn_sqlalchemy.database import MYSQL
from thorn_sqlalchemy.recipients import Recipients
from thorn_sqlalchemy.rows import attempt_of, delivery_of, micros, moment
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import beyond, chunks, one_of, same

SETTLED = tuple(state for state in DeliveryState if state.settled)


class History:
    """The tables of deliveries and attempts, as people see them.

    Args:
        tables: The tables.
        dialect: Name of the database.
        recipients: Are told what is due again.
    """

    def __init__(self, tables: Tables, dialect: str, recipients: Recipients) -> None:
        self._tables, self._dialect, self._recipients = tables, dialect, recipients
        table, attempts, messages = tables.deliveries, tables.attempts, tables.messages
        self._get = select(table).where(table.c.id == bindparam("key"))
        self._get_many = select(table).where(one_of(dialect, table.c.id, "keys"))
        self._attempts = (
            select(attempts)
            .where(
                one_of(dialect, attempts.c.delivery_id, "keys"), attempts.c.id > bindparam("after")
            )
            .order_by(attempts.c.id)
            .limit(bindparam("most"))
        )  # fmt: skip
        settled = table.c.state.in_([state.value for state in SETTLED])
        self._replay = (
            update(table)
            .where(one_of(dialect, table.c.id, "keys"), settled)
            .values(
                state=DeliveryState.PENDING.value,
                attempts_before=table.c.attempt_count,
                due_at=bindparam("now"),
                ready_at=bindparam("now"),
                settled_at=None,
                reason=None,
                token=None,
                leased_until=None,
            )
        )
        self._purge = delete(table).where(one_of(dialect, table.c.id, "keys"), settled)
        self._purge_attempts = delete(attempts).where(
            one_of(dialect, attempts.c.delivery_id, "keys")
        )
        # A delivery's id begins with its message's, so that the primary key finds them.
        start = literal("dlv_") + func.substr(messages.c.id, 5, type_=String)
        reached = exists(table.c.id).where(
            table.c.message_id == messages.c.id,
            table.c.id >= start + "_",
            table.c.id < start + chr(ord("_") + 1),
        )
        done = and_(messages.c.route_at.is_(None), ~reached)
        self._purge_messages = delete(messages).where(one_of(dialect, messages.c.id, "keys"), done)
        self._unreached = (
            select(messages.c.id)
            .where(done)
            .order_by(messages.c.at, messages.c.id)
            .limit(bindparam("most"))
        )

    # -- look

    def delivery(self, connection: Connection, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        row = connection.execute(self._get, {"key": delivery_id}).first()
        return None if row is None else delivery_of(row)

    def deliveries(
        self,
        connection: Connection,
        query: DeliveryQuery,
        after: tuple[datetime, str] | None,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[Delivery]:
        """A page of deliveries, by age."""
        place = None if after is None else (micros(after[0]), after[1])
        found = self._found(connection, query, limit, place, newest_first=newest_first)
        return [delivery_of(row) for row in found]

    def _found(
        self,
        connection: Connection,
        query: DeliveryQuery,
        limit: int,
        after: tuple[int, str] | None = None,
        *,
        newest_first: bool = False,
    ) -> list[Row[Any]]:
        table = self._tables.deliveries
        keys = [table.c.created_at, table.c.id]
        by = keys
        if query.subscription_id is not None and self._dialect in MYSQL:
            by = [table.c.subscription_id, *keys]
        order = [key.desc() for key in by] if newest_first else by
        selected = select(table).where(*self._conditions(query)).order_by(*order).limit(limit)
        found: list[Row[Any]] = []
        while len(found) < limit:
            statement = selected
            if after is not None:
                statement = selected.where(
                    beyond(self._dialect, keys, after, descending=newest_first)
                )
            page = connection.execute(statement).all()
            found += [r for r in page if query.event is None or matches(query.event, r.event)]
            if len(page) < limit:
                break
            after = page[-1].created_at, page[-1].id
        return found[:limit]

    def _conditions(self, query: DeliveryQuery) -> Iterator[ColumnElement[bool]]:
        c = self._tables.deliveries.c
        if query.ids is not None:
            yield c.id.in_(query.ids)
        if query.message_id is not None:
            yield of_message(self._tables.deliveries, query.message_id)
        if query.subscription_id is not None:
            yield same(self._dialect, c.subscription_id, query.subscription_id)
        if query.event is not None:
            yield c.event.startswith(query.event.partition("*")[0], autoescape=True)
        if query.states is not None:
            yield c.state.in_([state.value for state in query.states])
        if query.since is not None:
            yield c.created_at >= micros(query.since)
        if query.until is not None:
            yield c.created_at < micros(query.until)

    def count(self, connection: Connection, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        table = self._tables.deliveries
        conditions = self._conditions(query)
        if query.event is None:
            counted = select(func.count()).select_from(table).where(*conditions)
            return int(connection.execute(counted).scalar_one())
        by_event = select(table.c.event, func.count()).where(*conditions).group_by(table.c.event)
        rows = connection.execute(by_event)
        return sum(count for event, count in rows if matches(query.event, event))

    def attempts(
        self, connection: Connection, delivery_ids: Sequence[str], after: str | None, limit: int
    ) -> list[Attempt]:
        """A page of the attempts of these deliveries."""
        found: list[Attempt] = []
        for some in chunks(sorted(set(delivery_ids))):
            values = {"keys": some, "after": after or "", "most": limit}
            found += [attempt_of(row) for row in connection.execute(self._attempts, values)]
        found.sort(key=lambda attempt: attempt.id)
        return found[:limit]

    # -- change

    def replay(
        self, connection: Connection, query: DeliveryQuery, now: datetime, limit: int
    ) -> list[Delivery]:
        """Make settled deliveries pending again."""
        ids = [row.id for row in self._found(connection, query.only_settled(), limit)]
        replayed: list[Delivery] = []
        for some in chunks(ids):
            connection.execute(self._replay, {"keys": some, "now": micros(now)})
            rows = connection.execute(self._get_many, {"keys": some})
            replayed += [delivery_of(r) for r in rows if r.state == DeliveryState.PENDING.value]
        self._recipients.due(connection, ((d.recipient, micros(d.due_at)) for d in replayed))
        return sorted(replayed, key=lambda delivery: delivery.id)

    def purge(self, connection: Connection, query: DeliveryQuery, limit: int) -> int:
        """Remove settled deliveries with their attempts, and messages left without any."""
        rows = self._found(connection, query.only_settled(), limit)
        for some in chunks(rows):
            keys = [row.id for row in some]
            connection.execute(self._purge_attempts, {"keys": keys})
            connection.execute(self._purge, {"keys": keys})
            messages = sorted({row.message_id for row in some})
            connection.execute(self._purge_messages, {"keys": messages})
        return len(rows)

    def purge_unreached(self, connection: Connection, until: datetime | None, limit: int) -> int:
        """Remove routed messages without deliveries, as of events nobody was subscribed to."""
        statement = self._unreached
        if until is not None:
            statement = statement.where(self._tables.messages.c.at < micros(until))
        ids = connection.execute(statement, {"most": limit}).scalars().all()
        for some in chunks(ids):
            connection.execute(self._purge_messages, {"keys": some})
        return len(ids)

    # -- count

    def stats(self, connection: Connection, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        tables = self._tables
        messages, deliveries, attempts = tables.messages, tables.deliveries, tables.attempts
        states = dict.fromkeys(DeliveryState, 0)
        counted = select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
        for state, count in connection.execute(counted):
            states[DeliveryState(state)] = count
        waits = (
            select(func.min(deliveries.c.ready_at)).where(deliveries.c.ready_at <= micros(now)),
            select(func.min(messages.c.at)).where(messages.c.route_at >= 0),
        )
        since = [at for each in waits if (at := connection.execute(each).scalar()) is not None]
        lately = attempts.c.at.between(micros(now - window), micros(now))
        answered = and_(lately, attempts.c.status.is_not(None))
        step = func.round(attempts.c.duration * STEPS)
        busiest = connection.execute(
            select(attempts.c.recipient, func.count().label("many"))
            .where(answered)
            .group_by(attempts.c.recipient)
            .order_by(func.count().desc(), attempts.c.recipient)
            .limit(BUSIEST)
        ).all()
        by_recipient: dict[str, dict[float, int]] = {row.recipient: {} for row in busiest}
        latencies = (
            select(attempts.c.recipient, step, func.count())
            .where(answered, attempts.c.recipient.in_(list(by_recipient)))
            .group_by(attempts.c.recipient, step)
        )
        for recipient, steps, count in connection.execute(latencies):
            by_recipient[recipient][float(steps) / STEPS] = count
        every = select(step, func.count()).where(answered).group_by(step)
        overall = {float(steps) / STEPS: count for steps, count in connection.execute(every)}

        def count_of(statement: Select[Any]) -> int:
            return int(connection.execute(statement).scalar_one())

        failing = case((attempts.c.status.between(200, 299), 0), else_=1)
        made, failed = connection.execute(
            select(func.count(), func.sum(failing)).select_from(attempts).where(lately)
        ).one()
        return Stats(
            subscriptions=count_of(select(func.count()).select_from(tables.subscriptions)),
            messages=count_of(select(func.count()).select_from(messages)),
            unrouted=count_of(
                select(func.count()).select_from(messages).where(messages.c.route_at >= 0)
            ),
            deliveries=states,
            due_since=moment(min(since)) if since else None,
            attempts=made,
            failed=int(failed or 0),
            window=window,
            latency=percentiles(overall),
            recipients={name: percentiles(counts) for name, counts in by_recipient.items()},
        )

    def periods(self, connection: Connection, asked: Periods) -> list[Period]:
        """How deliveries to one subscription went, period by period."""
        deliveries, attempts = self._tables.deliveries, self._tables.attempts
        since, step = micros(asked.since), micros(asked.since + asked.step) - micros(asked.since)
        mine = and_(
            deliveries.c.subscription_id == asked.subscription_id,
            deliveries.c.created_at >= since,
            deliveries.c.created_at < micros(asked.until),
        )
        newest = select(deliveries.c.created_at).where(mine)
        oldest = connection.execute(
            newest.order_by(deliveries.c.created_at.desc()).offset(asked.limit - 1).limit(1)
        ).scalar()
        looked_at = mine if oldest is None else and_(mine, deliveries.c.created_at >= oldest)

        # By a name that no column has: databases look for columns first.
        def number(at: ColumnElement[int]) -> ColumnElement[int]:
            return ((at - since) // step).label("nth")

        counts = (
            select(number(deliveries.c.created_at), deliveries.c.state, func.count())
            .where(looked_at)
            .group_by("nth", deliveries.c.state)
        )
        tenths = func.round(attempts.c.duration * STEPS).label("tenths")
        latencies = (
            select(number(attempts.c.at), tenths, func.count())
            .select_from(attempts.join(deliveries, attempts.c.delivery_id == deliveries.c.id))
            # Without a range of `at`: by that index, a database may go through them all each time.
            .where(looked_at, attempts.c.status.is_not(None))
            .group_by("nth", "tenths")
        )
        return asked.made(
            ((int(n), state, many) for n, state, many in connection.execute(counts)),
            ((int(n), tenths, many) for n, tenths, many in connection.execute(latencies)),
        )
