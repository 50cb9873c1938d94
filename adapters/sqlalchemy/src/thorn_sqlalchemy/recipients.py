"""Recipients: whose turn it is.

A recipient's row says from when on there may be something to claim for it: never later than there
is. So a claim looks at the recipients that are ready, those that have waited longest first, and
not at the backlog of those that aren't. Whoever adds something due moves the time forward in the
same transaction; the row's lock orders that against a claim that is about to move it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, case, func, select, update

from thorn_sqlalchemy.schema import Tables
from thorn_sqlalchemy.statements import (
    Columns,
    chunks,
    earlier,
    first_of,
    later,
    one_of,
    upserting,
)

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
        self._due = upserting(dialect, table, _sooner)
        self._paused = upserting(dialect, table, _left_alone)
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
            full: first_of(dialect, statement, "most")
            for full, statement in ((False, ready), (True, others))
        }
        self._first = {
            full: statement.limit(1).with_for_update()
            for full, statement in ((False, ready), (True, others))
        }
        now = bindparam("now", type_=table.c.ready_at.type)
        # With more to claim, behind those that have waited longer.
        following = (
            select(later(deliveries.c.ready_at, now))
            .where(deliveries.c.recipient == table.c.recipient, deliveries.c.ready_at.is_not(None))
            .order_by(deliveries.c.ready_at)
            .limit(1)
            .scalar_subquery()
        )
        self._served = (
            update(table)
            .where(one_of(dialect, table.c.recipient, "keys"))
            .values(ready_at=following)
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
            # In one order everywhere, so that no two transactions wait for each other.
            names = sorted(soonest)
            rows = [{"recipient": n, "ready_at": soonest[n], "paused_until": 0} for n in names]
            self._due(connection, rows)

    def pause(self, connection: Connection, ends: Iterable[tuple[str, int]]) -> None:
        """Leave recipients alone until these times, or later ones that were said before."""
        latest: dict[str, int] = {}
        for recipient, at in ends:
            latest[recipient] = max(at, latest.get(recipient, at))
        if latest:
            names = sorted(latest)
            rows = [{"recipient": n, "ready_at": None, "paused_until": latest[n]} for n in names]
            self._paused(connection, rows)

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


def _sooner(row: Columns, given: Columns) -> Columns:
    """Ready as soon as it was, or as is given if that is sooner; but not while it is paused."""
    sooner = earlier(func.coalesce(row["ready_at"], given["ready_at"]), given["ready_at"])
    return {"ready_at": later(sooner, row["paused_until"])}


def _left_alone(row: Columns, given: Columns) -> Columns:
    """Paused for as long as it was, or as is given if that is longer."""
    until = later(row["paused_until"], given["paused_until"])
    waiting = case((row["ready_at"].is_(None), None), else_=later(row["ready_at"], until))
    return {"ready_at": waiting, "paused_until": until}
