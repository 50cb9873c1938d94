"""Recipients: whose turn it is.

A recipient's row says from when on there may be something to claim for it: never later than there
is. So a claim looks at the recipients that are ready, those that have waited longest first, and
not at the backlog of those that aren't. Whoever adds something due moves the time forward in the
same transaction; the row's lock orders that against a claim that is about to move it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, case, select, update
from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import chunks, earlier, insert_new, later, one_of

# Recipients looked at by one claim.
MOST = 64


class Recipients:
    """The table of recipients.

    Args:
        tables: The tables.
        dialect: Name of the database.
    """

    def __init__(self, tables: Tables, dialect: str) -> None:
        table, deliveries = tables.recipients, tables.deliveries
        self._locks = dialect != "sqlite"
        self._insert = insert_new(dialect, table)
        mine = table.c.recipient == bindparam("key")
        at = bindparam("at", type_=table.c.ready_at.type)
        sooner = case((table.c.ready_at.is_(None), at), else_=earlier(table.c.ready_at, at))
        self._sooner = (
            update(table).where(mine).values(ready_at=later(sooner, table.c.paused_until))
        )
        self._pause = (
            update(table)
            .where(mine)
            .values(
                ready_at=case(
                    (table.c.ready_at.is_(None), None),
                    else_=later(table.c.ready_at, later(table.c.paused_until, at)),
                ),
                paused_until=later(table.c.paused_until, at),
            )
        )
        ready = (
            select(table.c.recipient)
            .where(table.c.ready_at <= bindparam("now"))
            .order_by(table.c.ready_at, table.c.recipient)
        )
        others = ready.where(
            table.c.recipient.not_in(
                bindparam("full", type_=table.c.recipient.type, expanding=True)
            )
        )
        self._ready = {
            full: statement.limit(bindparam("most")).with_for_update(skip_locked=True)
            for full, statement in ((False, ready), (True, others))
        }
        self._first = {
            full: statement.limit(1).with_for_update()
            for full, statement in ((False, ready), (True, others))
        }
        now = bindparam("now", type_=table.c.ready_at.type)
        # With more to claim, behind those that have waited longer.
        following = (
            select(later(deliveries.c.due_at, now))
            .where(
                deliveries.c.state == "pending",
                deliveries.c.recipient == table.c.recipient,
            )
            .order_by(deliveries.c.due_at)
            .limit(1)
            .scalar_subquery()
        )
        self._served = (
            update(table).where(one_of(table.c.recipient, "keys")).values(ready_at=following)
        )

    def due(self, connection: Connection, times: Iterable[tuple[str, int]]) -> None:
        """Something is due for recipients at these times.

        Args:
            connection: In the transaction that makes it due.
            times: Recipients and microseconds.
        """
        soonest: dict[str, int] = {}
        for recipient, at in times:
            soonest[recipient] = min(at, soonest.get(recipient, at))
        if soonest:
            names = sorted(soonest)
            connection.execute(
                self._insert,
                [{"recipient": n, "ready_at": soonest[n], "paused_until": 0} for n in names],
            )
            connection.execute(self._sooner, [{"key": n, "at": soonest[n]} for n in names])

    def pause(self, connection: Connection, ends: Iterable[tuple[str, int]]) -> None:
        """Leave recipients alone until these times, or later ones that were said before."""
        latest: dict[str, int] = {}
        for recipient, at in ends:
            latest[recipient] = max(at, latest.get(recipient, at))
        if latest:
            names = sorted(latest)
            connection.execute(
                self._insert,
                [{"recipient": n, "ready_at": None, "paused_until": 0} for n in names],
            )
            connection.execute(self._pause, [{"key": n, "at": latest[n]} for n in names])

    def ready(self, connection: Connection, now: int, limit: int, full: Sequence[str]) -> list[str]:
        """Lock those whose turn it is, the longest waiting first.

        Args:
            connection: In the transaction that is to claim.
            now: Microseconds.
            limit: How many at most.
            full: Those that may get no more.
        """
        values: dict[str, object] = {"now": now, "most": min(limit, MOST)}
        if full:
            values["full"] = full
        found = list(connection.execute(self._ready[bool(full)], values).scalars())
        if not found and self._locks:
            # Others have locked what there is, for a moment: wait for one instead of going away.
            del values["most"]
            found = list(connection.execute(self._first[bool(full)], values).scalars())
        return found

    def served(self, connection: Connection, recipients: Sequence[str], now: int) -> None:
        """Put recipients behind the others, until there is something for them again."""
        for some in chunks(recipients):
            connection.execute(self._served, {"keys": some, "now": now})
