"""Recipients: the queue's view of subscriptions, and the order of their turns.

A recipient's row holds the time of its next claimable delivery, or an earlier time. So a claim
examines only the ready recipients, longest wait first, and never the backlog of the others. A
transaction that adds a due delivery also sets an earlier time. The row's lock serialises that with
a claim that sets a later one.

Transactions lock rows by ascending key, and this table last. A claim skips locked rows. If all rows
are locked, it waits for one of them before it locks anything else. Rows are never deleted, because
processes cache their existence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from thorn_core.errors import StoreError
from thorn_core.keys import recipient_key
from thorn_core.ports.tables import Column
from thorn_core.recipients.origins import origin_of
from thorn_core.stores.sql.schema import BIG, RECIPIENTS
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import LIST_SIZE
from thorn_core.values import Subscription

logger = logging.getLogger(__name__)

# The number of recipients that one claim examines.
MOST = 64
# If other transactions have locked these recipients, examine up to this multiple of them.
WINDOWS = 4
# Leases of a recipient to search for the earliest end: more than the recipient has slots.
LEASED = 1000
# The size of the cache of recipients: about 10 MB.
REMEMBERED = 50_000

_KEY, _READY_AT = RECIPIENTS.column("id"), RECIPIENTS.column("ready_at")
_PAUSED, _BLOCKED_UNTIL = RECIPIENTS.column("paused"), RECIPIENTS.column("blocked_until")
_RECIPIENT = (Column("recipient", BIG),)

IDS = "SELECT id, subscription_id FROM $recipients WHERE id IN (:keys.big*)"
TURNS = (
    "SELECT id, subscription_id, ready_at, paused, blocked_until FROM $recipients"
    " WHERE id IN (:keys.big*)"
)
LOCK = (
    "SELECT id, ready_at, paused, blocked_until FROM $recipients"
    " WHERE id IN (:keys.big*) ORDER BY id"
)
READY = "SELECT id FROM $recipients WHERE ready_at <= :now.big{others} ORDER BY ready_at, id"
# By primary key alone: with the index on `ready_at`, MariaDB would also lock the index entries of
# skipped rows, and the transactions that hold those rows still have to change the entries.
TAKE = "SELECT id, paused FROM $recipients WHERE id IN (:keys.big*) AND ready_at + 0 <= :now.big"
OTHERS = " AND id NOT IN (:full.big*)"
# The next claimable delivery: the first one not yet due, or the first expired lease.
NEXT = (
    "SELECT v.recipient AS recipient,"
    " (SELECT q.due_at FROM $queue q WHERE q.recipient = v.recipient AND q.due_at > :now.big"
    " ORDER BY q.due_at LIMIT 1) AS due_at,"
    " (SELECT min(leased.leased_until) FROM (SELECT q.leased_until FROM $queue q"
    " WHERE q.recipient = v.recipient AND q.due_at <= :now.big ORDER BY q.due_at, q.id{limit})"
    " AS leased) AS leased_until"
)
FORESEEN = "SELECT min(ready_at) FROM $recipients"
# Ready at once: the next claim calculates the real time.
LIFT = (
    "UPDATE $recipients SET ready_at = :now.big, paused = 0, blocked_until = 0 WHERE id = :id.big"
)
MOVE_ORIGIN = "UPDATE $recipients SET owner = :owner.name, origin = :origin.name WHERE id = :id.big"


class Recipients:
    """The table of recipients, and a cache of existing rows."""

    def __init__(self) -> None:
        # Rows that a claim has read, so they are committed.
        self._ids: dict[int, str] = {}

    # -- rows

    def known(
        self, statements: Statements, subscriptions: Sequence[Subscription]
    ) -> dict[str, int]:
        """Insert missing rows for subscriptions, in the transaction that routes to them.

        Returns:
            Keys by subscription id. A subscription is left out if another subscription has the same
            key: its deliveries would reach the other one.
        """
        by_id = {each.id: each for each in subscriptions}
        return self.keys(statements, by_id, lambda _: by_id)

    def keys(
        self,
        statements: Statements,
        ids: Collection[str],
        find: Callable[[Sequence[str]], Mapping[str, Subscription]],
    ) -> dict[str, int]:
        """Insert missing rows as `known` does, by subscription id.

        Args:
            statements: Runs the SQL, in the transaction that routes to the subscriptions.
            ids: The subscriptions' ids; some may have been removed.
            find: Returns the subscriptions that need new rows.
        """
        wanted = {recipient_key(id_): id_ for id_ in ids}
        there = {key: self._ids[key] for key in wanted if key in self._ids}
        missing = sorted(wanted.keys() - there.keys())
        if missing:
            there.update(_ids(statements, missing))
        if new := [key for key in missing if key not in there]:
            found = find([wanted[key] for key in new])
            rows = [_row(key, wanted[key], found.get(wanted[key])) for key in new]
            statements.insert(RECIPIENTS, rows, ignoring=True)
            there.update(_ids(statements, new))
        keys = {}
        for id_ in ids:
            key = recipient_key(id_)
            if there[key] == id_:
                keys[id_] = key
            else:
                logger.error(
                    "subscription %s has the recipient key of subscription %s: nothing is delivered"
                    " to it; subscribe it again under another id",
                    id_,
                    there[key],
                )
        return keys

    def remember(self, ids: Iterable[tuple[int, str]]) -> None:
        """Cache committed rows: rows read in a transaction that has inserted none."""
        if len(self._ids) >= REMEMBERED:
            self._ids = {}
        self._ids.update(ids)

    # -- due times

    def due(
        self,
        statements: Statements,
        times: Iterable[tuple[int, int]],
        blocks: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Record due deliveries of recipients, and pauses that recipients asked for.

        Args:
            statements: Runs the SQL, in the transaction that adds the deliveries.
            times: Due times in microseconds by key.
            blocks: Ends of pauses in microseconds by key; a later end in the table stays.

        Raises:
            StoreError: A recipient has no row, so its deliveries would never be claimed.
        """
        soonest: dict[int, int] = {}
        for key, at in times:
            soonest[key] = min(at, soonest.get(key, at))
        latest: dict[int, int] = {}
        for key, at in blocks:
            latest[key] = max(at, latest.get(key, at))
        changed = []
        rows = _locked(statements, soonest.keys() | latest.keys())
        for key, ready_at, paused, blocked_until in rows:
            before = (ready_at, blocked_until)
            after = _after(ready_at, paused, blocked_until, soonest.get(key), latest.get(key))
            if after != before:
                changed.append((key, *after))
        lost = soonest.keys() - {row[0] for row in rows}
        if lost:
            raise StoreError(f"no rows of the recipients {sorted(lost)}; rows are never deleted")
        statements.update(
            RECIPIENTS,
            (_KEY, _READY_AT, _BLOCKED_UNTIL),
            changed,
            "ready_at = v.ready_at, blocked_until = v.blocked_until",
        )

    # -- turns

    def open(self, statements: Statements, ids: Collection[str], now: int) -> dict[str, bool]:
        """Return the subscriptions that aren't paused, and whether they have due deliveries.

        Args:
            statements: Runs the SQL, on a reading connection.
            ids: The subscriptions' ids; they may have no rows yet.
            now: The current time in microseconds.
        """
        found = dict.fromkeys(ids, False)
        keys = sorted(map(recipient_key, found))
        rows = statements.rows(TURNS, keys=keys) if keys else []
        for _, id_, ready_at, paused, blocked_until in rows:
            if paused or blocked_until > now:
                found.pop(id_, None)
            elif id_ in found:
                found[id_] = ready_at is not None and ready_at <= now
        self.remember((row[0], row[1]) for row in rows)
        return found

    def ready(self, statements: Statements, now: int, limit: int, full: Sequence[int]) -> list[int]:
        """Lock the recipients whose turn it is, longest wait first.

        Args:
            statements: Runs the SQL, in the claim's transaction.
            now: The current time in microseconds.
            limit: The maximum number.
            full: Recipients without free slots. If there are many, the result may contain some of
                them.
        """
        wording = statements.wording
        size = min(limit, MOST)
        text = READY.format(others=OTHERS if full else "")
        values = {"full": full[:LIST_SIZE]} if full else {}
        rows = statements.rows(f"{text}{wording.limit}", now=now, most=WINDOWS * size, **values)
        waiting = [key for (key,) in rows]
        for start in range(0, len(waiting), size):
            some = waiting[start : start + size]
            if taken := _taken(statements, some, now, wording.skip_locked):
                return [key for key in some if key in taken]
        # Other transactions have locked all of them for a moment: wait for one instead of giving
        # up.
        return list(_taken(statements, waiting[:1], now, wording.for_update))

    def served(self, statements: Statements, turns: Mapping[int, bool], now: int) -> None:
        """Move recipients behind the others, until their next delivery is claimable.

        Args:
            statements: Runs the SQL, in the transaction that has locked and served them.
            turns: Whether more deliveries are due, by key.
            now: The current time in microseconds.
        """
        following: dict[int, int | None] = dict.fromkeys(turns, now)
        idle = [(key,) for key, more in turns.items() if not more]
        text = NEXT.format(limit=statements.wording.limit)
        rows = statements.for_each(text, _RECIPIENT, idle, now=now, most=LEASED)
        for key, due_at, leased_until in rows:
            following[key] = min((t for t in (due_at, leased_until) if t is not None), default=None)
        changed = sorted(following.items())
        statements.update(RECIPIENTS, (_KEY, _READY_AT), changed, "ready_at = v.ready_at")

    def next_due(self, statements: Statements) -> int | None:
        """Return the earliest time at which work may be claimable, in microseconds."""
        found = statements.first(FORESEEN)
        return None if found is None else found[0]

    # -- pauses

    def pause(
        self, statements: Statements, subscription_id: str, stored: Subscription | None
    ) -> bool:
        """Hold a subscription's deliveries, current and future ones.

        Args:
            statements: Runs the SQL, in a transaction.
            subscription_id: The subscription's id.
            stored: The subscription, if the store has it.

        Returns:
            False if the store doesn't have it and never routed a message to it.
        """
        return self._set_paused(statements, subscription_id, stored, None)

    def resume(
        self, statements: Statements, subscription_id: str, stored: Subscription | None, now: int
    ) -> bool:
        """Release a subscription's held deliveries, at a time in microseconds."""
        return self._set_paused(statements, subscription_id, stored, now)

    def _set_paused(
        self,
        statements: Statements,
        subscription_id: str,
        stored: Subscription | None,
        ready_at: int | None,
    ) -> bool:
        if stored is not None:
            self.known(statements, [stored])
        key = recipient_key(subscription_id)
        if _ids(statements, [key]).get(key) != subscription_id:
            return False
        rows: list[tuple[int, int | None, int]] = []
        for _, _, paused, blocked_until in _locked(statements, [key]):
            if ready_at is None:
                rows.append((key, None, 1))
            elif paused:
                # Ready at once: the next claim calculates the real time.
                rows.append((key, max(ready_at, blocked_until), 0))
        statements.update(
            RECIPIENTS,
            (_KEY, _READY_AT, _PAUSED),
            rows,
            "ready_at = v.ready_at, paused = v.paused",
        )
        return True

    def removed(self, statements: Statements, subscription_id: str, now: int) -> None:
        """Make a removed subscription's deliveries claimable, so that workers finish them.

        Args:
            statements: Runs the SQL, in the transaction that removes the subscription.
            subscription_id: The subscription's id.
            now: The current time in microseconds.
        """
        key = recipient_key(subscription_id)
        if _ids(statements, [key]).get(key) == subscription_id:
            statements.change(LIFT, id=key, now=now)

    def changed(self, statements: Statements, before: Subscription, after: Subscription) -> None:
        """Copy owner and origin to a changed subscription's row; a new URL also ends the pause."""
        if (before.url, before.owner) == (after.url, after.owner):
            return
        rows = _locked(statements, [recipient_key(after.id)])
        for key, ready_at, _, blocked_until in rows:
            statements.change(
                MOVE_ORIGIN, id=key, owner=after.owner, origin=origin_of(after.url) or ""
            )
            if before.url != after.url and blocked_until:
                # The earliest possible time: the next claim calculates the real one.
                sooner = None if ready_at is None else 0
                statements.update(
                    RECIPIENTS,
                    (_KEY, _READY_AT, _BLOCKED_UNTIL),
                    [(key, sooner, 0)],
                    "ready_at = v.ready_at, blocked_until = v.blocked_until",
                )


def _ids(statements: Statements, keys: Sequence[int]) -> dict[int, str]:
    return dict(statements.rows(IDS, keys=keys)) if keys else {}


def _row(key: int, id_: str, subscription: Subscription | None) -> tuple[object, ...]:
    owner, origin = None, ""
    if subscription is not None:
        owner, origin = subscription.owner, origin_of(subscription.url) or ""
    return (key, id_, owner, origin, None, 0, 0, 0, None, None)


def _taken(statements: Statements, keys: Sequence[int], now: int, lock: str) -> set[int]:
    """Lock rows; return those that are still ready."""
    rows = statements.rows(f"{TAKE}{lock}", keys=keys, now=now) if keys else []
    return {key for key, _ in rows}


def _locked(
    statements: Statements, keys: Collection[int]
) -> list[tuple[int, int | None, int, int]]:
    """Lock rows in ascending order, so that no two transactions wait for each other."""
    text = f"{LOCK}{statements.wording.for_update}"
    return statements.rows(text, keys=sorted(keys)) if keys else []


def _after(
    ready_at: int | None, paused: int, blocked_until: int, due_at: int | None, block: int | None
) -> tuple[int | None, int]:
    """Return a recipient's ready time and the end of its pause after an addition.

    Example:
        >>> _after(20, 0, 0, 10, None), _after(None, 0, 15, 10, None), _after(20, 0, 0, None, 30)
        ((10, 0), (15, 15), (30, 30))
        >>> _after(None, 1, 0, 10, None), _after(None, 0, 0, None, 30)
        ((None, 0), (None, 30))
    """
    until = max(blocked_until, block or 0)
    times = [time for time in (ready_at, due_at) if time is not None]
    if paused or not times:
        return None, until
    return max(min(times), until), until
