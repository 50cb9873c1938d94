"""Recipients: subscriptions as the queue sees them, and whose turn it is.

A recipient's row says from when on there may be something to claim for it: never later than there
is. So a claim looks at the recipients that are ready, those that have waited longest first, and not
at the backlog of the others. Whoever adds something due moves the time forward in the same
transaction; the row's lock orders that against a claim that is about to move it back.

Rows are locked by ascending key, and last of all tables. A claim skips those that others have
locked; if it finds no other, it waits for one before it locks anything. A row is never deleted:
processes remember that it is there.
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

# Recipients looked at by one claim.
MOST = 64
# So many times as many are looked at, if others have locked those.
WINDOWS = 4
# Leases of one recipient among which the first to end is looked for: more than it has slots.
LEASED = 1000
# Recipients whose ids a process remembers: about 10 MB.
REMEMBERED = 50_000

_KEY, _READY_AT = RECIPIENTS.column("id"), RECIPIENTS.column("ready_at")
_PAUSED, _BLOCKED_UNTIL = RECIPIENTS.column("paused"), RECIPIENTS.column("blocked_until")
_RECIPIENT = (Column("recipient", BIG),)

IDS = "SELECT id, subscription_id FROM $recipients WHERE id IN (:keys.big*)"
LOCK = (
    "SELECT id, ready_at, paused, blocked_until FROM $recipients"
    " WHERE id IN (:keys.big*) ORDER BY id"
)
READY = "SELECT id FROM $recipients WHERE ready_at <= :now.big{others} ORDER BY ready_at, id"
# By key alone: by the index of `ready_at`, MariaDB would also lock the entries of rows that it
# skips, and whoever has locked those rows has yet to change the entries.
TAKE = "SELECT id, paused FROM $recipients WHERE id IN (:keys.big*) AND ready_at + 0 <= :now.big"
OTHERS = " AND id NOT IN (:full.big*)"
# When there is next something to claim: what isn't due yet; and what is due, all of it leased.
NEXT = (
    "SELECT v.recipient AS recipient,"
    " (SELECT q.due_at FROM $queue q WHERE q.recipient = v.recipient AND q.due_at > :now.big"
    " ORDER BY q.due_at LIMIT 1) AS due_at,"
    " (SELECT min(leased.leased_until) FROM (SELECT q.leased_until FROM $queue q"
    " WHERE q.recipient = v.recipient AND q.due_at <= :now.big ORDER BY q.due_at, q.id{limit})"
    " AS leased) AS leased_until"
)
FORESEEN = "SELECT min(ready_at) FROM $recipients"
# A claim looks, and finds when there really is something.
LIFT = (
    "UPDATE $recipients SET ready_at = :now.big, paused = 0, blocked_until = 0 WHERE id = :id.big"
)
MOVE_ORIGIN = "UPDATE $recipients SET owner = :owner.name, origin = :origin.name WHERE id = :id.big"


class Recipients:
    """The table of recipients, and which of them are known to be in it."""

    def __init__(self) -> None:
        # Rows that a claim has read, and that are therefore committed.
        self._ids: dict[int, str] = {}

    # -- rows

    def known(
        self, statements: Statements, subscriptions: Sequence[Subscription]
    ) -> dict[str, int]:
        """See to it that subscriptions have rows, in the transaction that routes to them.

        Returns:
            Keys by subscription id, without those that can't have a row, since another
            subscription has the same key. Nothing may be delivered to these: it would reach the
            other one.
        """
        by_id = {each.id: each for each in subscriptions}
        return self.keys(statements, by_id, lambda _: by_id)

    def keys(
        self,
        statements: Statements,
        ids: Collection[str],
        find: Callable[[Sequence[str]], Mapping[str, Subscription]],
    ) -> dict[str, int]:
        """As `known`, by ids.

        Args:
            statements: In the transaction that routes to them.
            ids: Of subscriptions; one may have been removed.
            find: Gives the subscriptions of those that get rows.
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
        """Remember rows, read in a transaction that has inserted none: they are committed."""
        if len(self._ids) >= REMEMBERED:
            self._ids = {}
        self._ids.update(ids)

    # -- what is due

    def due(
        self,
        statements: Statements,
        times: Iterable[tuple[int, int]],
        blocks: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Something is due for recipients, and some want no request for a while.

        Args:
            statements: In the transaction that makes it due.
            times: Keys, and microseconds from when on there is something.
            blocks: Keys, and microseconds until when nothing is sent; an earlier block that lasts
                longer stays.

        Raises:
            StoreError: A recipient has no row, so that nothing would ever be claimed for it.
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

    def ready(self, statements: Statements, now: int, limit: int, full: Sequence[int]) -> list[int]:
        """Lock the recipients whose turn it is, the longest waiting first.

        Args:
            statements: In the transaction that is to claim.
            now: Microseconds.
            limit: How many at most.
            full: Those that may get no more; of many, some may come nevertheless.
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
        # Others have locked them all, for a moment: wait for one instead of going away.
        return list(_taken(statements, waiting[:1], now, wording.for_update))

    def served(self, statements: Statements, turns: Mapping[int, bool], now: int) -> None:
        """Put recipients behind the others, until there is something for them again.

        Args:
            statements: In the transaction that has locked and served them.
            turns: Keys, and whether there is more due.
            now: Microseconds.
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
        """When there may next be something to claim, in microseconds."""
        found = statements.first(FORESEEN)
        return None if found is None else found[0]

    # -- pauses

    def pause(
        self, statements: Statements, subscription_id: str, stored: Subscription | None
    ) -> bool:
        """Hold what waits for a subscription, and what comes for it.

        Args:
            statements: In a transaction.
            subscription_id: Which.
            stored: The subscription, if it is in the store.

        Returns:
            False if it isn't, and nothing was ever sent to it.
        """
        return self._set_paused(statements, subscription_id, stored, None)

    def resume(
        self, statements: Statements, subscription_id: str, stored: Subscription | None, now: int
    ) -> bool:
        """Deliver what was held for a subscription; as `pause`, at a time in microseconds."""
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
                # A claim looks, and finds when there really is something.
                rows.append((key, max(ready_at, blocked_until), 0))
        statements.update(
            RECIPIENTS,
            (_KEY, _READY_AT, _PAUSED),
            rows,
            "ready_at = v.ready_at, paused = v.paused",
        )
        return True

    def removed(self, statements: Statements, subscription_id: str, now: int) -> None:
        """A stored subscription has been removed: let what waits for it be claimed, and be over.

        Args:
            statements: In the transaction that removes it.
            subscription_id: Which.
            now: Microseconds.
        """
        key = recipient_key(subscription_id)
        if _ids(statements, [key]).get(key) == subscription_id:
            statements.change(LIFT, id=key, now=now)

    def changed(self, statements: Statements, before: Subscription, after: Subscription) -> None:
        """A stored subscription has changed: what its old URL asked for is over with the URL."""
        if (before.url, before.owner) == (after.url, after.owner):
            return
        rows = _locked(statements, [recipient_key(after.id)])
        for key, ready_at, _, blocked_until in rows:
            statements.change(
                MOVE_ORIGIN, id=key, owner=after.owner, origin=origin_of(after.url) or ""
            )
            if before.url != after.url and blocked_until:
                # As early as may be: a claim looks, and finds when there really is something.
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
    """Lock rows, and say which of them are ready still."""
    rows = statements.rows(f"{TAKE}{lock}", keys=keys, now=now) if keys else []
    return {key for key, _ in rows}


def _locked(
    statements: Statements, keys: Collection[int]
) -> list[tuple[int, int | None, int, int]]:
    """Lock rows, in one order everywhere, so that no two transactions wait for each other."""
    text = f"{LOCK}{statements.wording.for_update}"
    return statements.rows(text, keys=sorted(keys)) if keys else []


def _after(
    ready_at: int | None, paused: int, blocked_until: int, due_at: int | None, block: int | None
) -> tuple[int | None, int]:
    """When a recipient is ready, and until when it is blocked, once something was added.

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
