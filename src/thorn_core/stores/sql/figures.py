"""Statistics: counts of the store's contents and results of attempts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from thorn_core.keys import first_key, recipient_key
from thorn_core.latencies import BUSIEST, STEPS, percentiles
from thorn_core.periods import Periods
from thorn_core.stores.sql.rows import FINISHED, OPEN, micros, moment
from thorn_core.stores.sql.statements import Statements
from thorn_core.values import DeliveryState, Period, Stats

COUNT = "SELECT count(*) FROM {table}"
BY_STATE = "SELECT state, count(*) FROM $deliveries GROUP BY state"
QUEUED = "SELECT count(*), count(leased_until) FROM $queue"
# Deliveries to a paused subscription wait for no worker.
DUE_SINCE = (
    "SELECT min(q.due_at) FROM $queue q JOIN $recipients r ON r.id = q.recipient"
    " WHERE q.due_at <= :now.big AND (q.leased_until IS NULL OR q.leased_until <= :now.big)"
    " AND r.paused = 0"
)
# Order by key: messages sort by time, and PostgreSQL has no min() of bytea.
UNROUTED_SINCE = (
    "SELECT m.at FROM $outbox o JOIN $messages m ON m.id = o.message_id"
    " ORDER BY o.message_id LIMIT 1"
)

LATELY = "a.at >= :since.big AND a.at <= :now.big"
ANSWERED = f"{LATELY} AND a.status IS NOT NULL"
# A delivery's key ends with its recipient's key.
WHOM = "substr(a.delivery_id, 17, 8)"
ATTEMPTED = (
    "SELECT count(*), sum(CASE WHEN a.status BETWEEN 200 AND 299 THEN 0 ELSE 1 END)"
    f" FROM $attempts a WHERE {LATELY}"
)
LATENCIES = f"SELECT {{tenths}}, count(*) FROM $attempts a WHERE {ANSWERED} GROUP BY 1"
MOST_ATTEMPTED = (
    f"SELECT {WHOM}, count(*) FROM $attempts a WHERE {ANSWERED}"
    f" GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {BUSIEST}"
)
LATENCIES_OF = (
    f"SELECT {WHOM}, {{tenths}}, count(*) FROM $attempts a"
    f" WHERE {ANSWERED} AND {WHOM} IN (:whom.key*) GROUP BY 1, 2"
)
NAMES = "SELECT id, subscription_id FROM $recipients WHERE id IN (:ids.big*)"

MINE = (
    "d.recipient = :recipient.big AND d.id >= :first.key AND d.id < :end.key AND EXISTS"
    " (SELECT 1 FROM $recipients r WHERE r.id = d.recipient AND r.subscription_id = :whose.name)"
)
OLDEST = (
    f"SELECT d.id FROM $deliveries d WHERE {MINE}"
    " ORDER BY d.recipient DESC, d.id DESC LIMIT 1 OFFSET :skipped.int"
)
PERIOD_COUNTS = (
    "SELECT CASE {periods} END, d.state, CASE WHEN q.leased_until IS NULL THEN 0 ELSE 1 END,"
    " count(*) FROM $deliveries d LEFT JOIN $queue q ON q.id = d.id AND d.state = 0"
    f" WHERE {MINE} GROUP BY 1, 2, 3"
)
# No condition on the attempts' time: an index by time would scan every recipient's attempts.
PERIOD_LATENCIES = (
    "SELECT (a.at - :since.big) {div} :step.big, {tenths}, count(*)"
    " FROM $deliveries d JOIN $attempts a ON a.delivery_id = d.id"
    f" WHERE {MINE} AND a.status IS NOT NULL GROUP BY 1, 2"
)


def stats(statements: Statements, now: datetime, window: timedelta) -> Stats:
    """Count the store's contents and the results of recent attempts."""
    lately = {"since": micros(now - window), "now": micros(now)}
    states = dict.fromkeys(DeliveryState, 0)
    for state, many in statements.rows(BY_STATE):
        if state != OPEN:
            states[FINISHED[state]] = many
    ((queued, leased),) = statements.rows(QUEUED)
    states[DeliveryState.PENDING] = queued - leased
    states[DeliveryState.IN_FLIGHT] = leased
    waits = (statements.first(DUE_SINCE, **lately), statements.first(UNROUTED_SINCE))
    since = [row[0] for row in waits if row is not None and row[0] is not None]
    ((made, failed),) = statements.rows(ATTEMPTED, **lately)
    tenths = _tenths(statements)
    overall = _steps(statements.rows(LATENCIES.format(tenths=tenths), **lately))
    return Stats(
        subscriptions=_count(statements, "$subscriptions"),
        messages=_count(statements, "$messages"),
        unrouted=_count(statements, "$outbox"),
        deliveries=states,
        due_since=moment(min(since)) if since else None,
        attempts=made,
        failed_attempts=int(failed or 0),
        window=window,
        latency=percentiles(overall),
        recipients=_busiest(statements, lately),
    )


def _count(statements: Statements, table: str) -> int:
    ((many,),) = statements.rows(COUNT.format(table=table))
    return int(many)


def _tenths(statements: Statements) -> str:
    """Return the duration of an attempt in tenths of a millisecond, as SQL."""
    return f"(a.duration + 50) {statements.wording.div} {1_000_000 // STEPS}"


def _steps(rows: Iterable[tuple[Any, ...]]) -> dict[float, int]:
    return {int(tenths) / STEPS: many for tenths, many in rows}


def _busiest(statements: Statements, lately: dict[str, int]) -> dict[str, dict[int, float]]:
    """Return the latencies of the recipients with the most answered attempts, the busiest first."""
    whom = [ending for ending, _ in statements.rows(MOST_ATTEMPTED, **lately)]
    if not whom:
        return {}
    steps: dict[bytes, list[tuple[int, int]]] = {ending: [] for ending in whom}
    text = LATENCIES_OF.format(tenths=_tenths(statements))
    for ending, tenths, many in statements.rows(text, whom=whom, **lately):
        steps[ending].append((tenths, many))
    keys = {ending: int.from_bytes(ending, "big") for ending in whom}
    names = dict(statements.rows(NAMES, ids=list(keys.values())))
    return {
        names[keys[ending]]: percentiles(_steps(steps[ending]))
        for ending in whom
        if keys[ending] in names
    }


def periods(statements: Statements, asked: Periods) -> list[Period]:
    """Return the results of deliveries to one subscription, per period of the messages' times."""
    ends = [first_key(asked.since + (n + 1) * asked.step) for n in range(asked.number)]
    mine: dict[str, Any] = {
        "recipient": recipient_key(asked.subscription_id),
        "whose": asked.subscription_id,
        "first": first_key(asked.since),
        "end": ends[-1],
    }
    oldest = statements.first(OLDEST, **mine, skipped=asked.limit - 1)
    if oldest is not None:
        mine["first"] = oldest[0]
    words = " ".join(f"WHEN d.id < :end_{n}.key THEN {n}" for n in range(asked.number))
    given = {f"end_{n}": end for n, end in enumerate(ends)}
    counts = statements.rows(PERIOD_COUNTS.format(periods=words), **mine, **given)
    since, step = micros(asked.since), asked.step // timedelta(microseconds=1)
    text = PERIOD_LATENCIES.format(div=statements.wording.div, tenths=_tenths(statements))
    # Divide from one step earlier, so that times before the first period don't round to it.
    latencies = statements.rows(text, **mine, since=since - step, step=step)
    return asked.made(
        ((int(n), _state(state, leased), many) for n, state, leased, many in counts),
        ((int(n) - 1, tenths, many) for n, tenths, many in latencies),
    )


def _state(state: int, leased: int) -> DeliveryState:
    if state != OPEN:
        return FINISHED[state]
    return DeliveryState.IN_FLIGHT if leased else DeliveryState.PENDING
