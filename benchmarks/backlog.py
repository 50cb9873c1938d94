"""What a claim costs behind a backlog, against a small one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from common import Figure
from databases import NAMES, database
from sqlalchemy import text

from thorn_sqlalchemy import SqlStore

RECIPIENTS = 200
LEASE = timedelta(seconds=60)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def fill(store: SqlStore, number: int) -> None:
    """Make so many pending deliveries, of a message each hundred, to many recipients."""
    at = int(NOW.timestamp() * 1_000_000)
    deliveries, messages = store.tables.deliveries, store.tables.messages
    with store.engine.begin() as connection:
        for start in range(0, number, 20_000):
            rows = range(start, min(start + 20_000, number))
            connection.execute(
                messages.insert(),
                [
                    {
                        "id": f"msg_{n:032x}",
                        "event": "a.b",
                        "data": b"{}",
                        "at": at,
                        "route_at": None,
                    }
                    for n in rows
                    if n % 100 == 0
                ],
            )
            connection.execute(
                deliveries.insert(),
                [
                    {
                        "id": f"dlv_{n - n % 100:032x}_{n % 100:032x}",
                        "message_id": f"msg_{n - n % 100:032x}",
                        "subscription_id": f"sub_{n % 100:032x}",
                        "event": "a.b",
                        "recipient": f"r{n % RECIPIENTS}.example.com:443",
                        "state": "pending",
                        "attempt_count": 0,
                        "attempts_before": 0,
                        "due_at": at + n,
                        "ready_at": at + n,
                        "created_at": at,
                    }
                    for n in rows
                ],
            )
        connection.execute(
            store.tables.recipients.insert(),
            [
                {"recipient": f"r{n}.example.com:443", "ready_at": at, "paused_until": 0}
                for n in range(RECIPIENTS)
            ],
        )
    analyze = "ANALYZE TABLE" if store.executor.dialect == "mysql" else "ANALYZE"
    with store.engine.begin() as connection:
        connection.execute(text(f"{analyze} {deliveries.name}"))


def claim_time(name: str, number: int, claims: int) -> float | None:
    """Milliseconds of a claim of a hundred, the median of many."""
    with database(name) as url:
        if url is None:
            return None
        store = SqlStore(url)
        store.create()
        fill(store, number)
        now = NOW + timedelta(hours=1)
        took = []
        for serial in range(claims):
            begun = time.perf_counter()
            claimed = store.claim(
                now=now, lease=LEASE, limit=100, token=f"t{serial}", per_recipient=16, busy={}
            )
            took.append((time.perf_counter() - begun) * 1000)
            assert len(claimed) == 100, len(claimed)
        store.close()
        return statistics.median(took[5:])


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Every figure."""
    few, many = (5_000, 20_000) if quick else (10_000, 1_000_000)
    for name in NAMES:
        peer = claim_time(name, few, 40)
        subject = None if peer is None else claim_time(name, many, 40)
        if peer is None or subject is None:
            continue
        yield Figure(
            name=f"a claim of 100 among {many:,} pending deliveries, {name}",
            subject=subject,
            peer=peer,
            against=f"among {few:,}",
            unit="ms",
            ratio=subject / peer,
            target="<2",
        )
