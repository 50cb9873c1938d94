"""The cost of a claim with a large backlog, compared with a small one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from common import Figure
from databases import NAMES, analyze, database

from thorn_core.keys import first_key, recipient_key
from thorn_core.stores.sql.rows import OPEN, micros
from thorn_core.stores.sql.schema import DELIVERIES, MESSAGES, QUEUE, RECIPIENTS
from thorn_core.stores.sql.statements import Statements
from thorn_sqlalchemy import SqlStore

SUBSCRIPTIONS = 200
LEASE = timedelta(seconds=60)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = {recipient_key(id_): id_ for id_ in (f"sub_{n:032x}" for n in range(SUBSCRIPTIONS))}


def fill(store: SqlStore, number: int) -> None:
    """Create pending deliveries to many recipients, a hundred per message."""
    store.database.run(insert_recipients)
    for start in range(0, number, 20_000):
        some = range(start, min(start + 20_000, number))
        store.database.run(partial(insert, numbers=some))
    names = (store.tables.messages.name, store.tables.deliveries.name, store.tables.queue.name)
    analyze(store.engine, *names)


def insert_recipients(statements: Statements) -> None:
    """Insert the recipients, with due deliveries."""
    at = micros(NOW)
    rows = [(key, id_, None, "", at, 0, 0, 0, None, None) for key, id_ in KEYS.items()]
    statements.insert(RECIPIENTS, rows)


def insert(statements: Statements, *, numbers: range) -> None:
    """Insert the deliveries with these numbers, and their messages."""
    at, keys = micros(NOW), list(KEYS)
    messages, deliveries, queue = [], [], []
    for n in numbers:
        message = first_key(NOW + timedelta(milliseconds=n // 100))
        if n % 100 == 0:
            messages.append((message, "a.b", b"{}", at, None, None, None, None))
        recipient = keys[n % SUBSCRIPTIONS]
        key = message + recipient.to_bytes(8, "big")
        deliveries.append((key, recipient, OPEN, 0, at, None, None, None))
        queue.append((key, recipient, at + n, 0, None, None, None, None))
    statements.insert_fast(MESSAGES, messages)
    statements.insert_fast(DELIVERIES, deliveries)
    statements.insert_fast(QUEUE, queue)


def claim_time(name: str, number: int, claims: int) -> float | None:
    """Return the median milliseconds of a claim of a hundred deliveries."""
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
    """Yield all figures."""
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
