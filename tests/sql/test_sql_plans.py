"""What databases read for a page, far behind in long lists: what it shows, and hardly more."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from parts import DELIVERED, PENDING, Parts, delivery, later, message, micros, subscription

from thorn_core.keys import delivery_key, recipient_of
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql.missing import missing
from thorn_core.stores.sql.schema import QUEUE
from thorn_core.stores.sql.statements import Statements

MESSAGES, PAGE = 4000, 20
# Of so few and small rows PostgreSQL would read the whole table.
DATA = b'"' + b"x" * 900 + b'"'
BIG, SMALL = subscription(1), subscription(2)
OWNED = subscription(3, owner="ada", events=("article.*",))
MIDDLE = delivery(message(MESSAGES // 2, MESSAGES // 2), BIG).id
SHORT = ("thorn_queue", "thorn_recipients")
READS = (
    "SELECT sum(variable_value) FROM information_schema.session_status"
    " WHERE variable_name IN ('Handler_read_first', 'Handler_read_key', 'Handler_read_last',"
    " 'Handler_read_next', 'Handler_read_prev', 'Handler_read_rnd', 'Handler_read_rnd_next')"
)


@pytest.fixture(scope="module")
def filled(shared_database) -> Parts:
    store = Parts(shared_database)
    store.run(lambda s: store.recipients.known(s, [BIG, SMALL]))
    made = []
    for n in range(MESSAGES):
        of = message(n, n, sender=None if n % 10 else f"s{n % 30}", data=DATA)
        small = [delivery(of, SMALL, state=PENDING if n % 15 else DELIVERED)] if not n % 5 else []
        made.append((of, [delivery(of, BIG, state=DELIVERED), *small]))
    store.fill(made)
    waiting = [delivery_key(d.id) for _, some in made for d in some if d.state is PENDING]
    rows = [
        (key, recipient_of(key), micros(later(0)), *[0, None, None, None, None]) for key in waiting
    ]
    store.run(lambda s: s.insert(QUEUE, rows))
    analyze = "ANALYZE TABLE" if store.database.wording.dialect == "mysql" else "ANALYZE"
    for table in ("messages", "deliveries", "queue", "recipients"):
        store.run(lambda s, table=table: s.rows(f"{analyze} ${table}"))
    return store


def rows_read(store: Parts, work: Callable[[Statements], object]) -> int:
    """How many rows a database reads for some work."""
    dialect = store.database.wording.dialect
    with store.database.executor.reading() as connection:
        statements = Statements(connection, store.database.wording)
        if dialect == "mysql":
            before = int(connection.execute(READS)[0][0])
            nothing = int(connection.execute(READS)[0][0]) - before
            work(statements)
            return int(connection.execute(READS)[0][0]) - before - 2 * nothing
        work(statements)
        ran = list(connection.ran)
        if dialect == "sqlite":
            plans = [connection.execute(f"EXPLAIN QUERY PLAN {sql}", p) for sql, p in ran]
            steps = [row[3] for plan in plans for row in plan]
            return MESSAGES * sum(step.startswith(("SCAN", "USE TEMP")) for step in steps)
        explain = "EXPLAIN (ANALYZE, FORMAT JSON)"
        plans = [connection.execute(f"{explain} {sql}", p)[0][0] for sql, p in ran]
        return sum(_scanned(plan[0]["Plan"]) for plan in plans)


def _scanned(node) -> int:
    """The rows that a plan of PostgreSQL's reads from tables and indexes."""
    node = json.loads(node) if isinstance(node, str) else node
    inner = sum(_scanned(child) for child in node.get("Plans", ()))
    # Of tables of a few pages, whose rows are short, it reads all and is right.
    if "Scan" not in node["Node Type"] or node.get("Relation Name") in SHORT:
        return inner
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return inner + int(rows * node["Actual Loops"])


QUERIES = {
    "everybody's": DeliveryQuery(),
    "one's": DeliveryQuery(subscription_id=BIG.id),
    "one's of few": DeliveryQuery(subscription_id=SMALL.id),
    "delivered": DeliveryQuery(states=(DELIVERED,), subscription_id=BIG.id),
    "pending": DeliveryQuery(states=(PENDING,)),
    "since": DeliveryQuery(since=later(MESSAGES * 0.4), until=later(MESSAGES * 0.7)),
}


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("name", QUERIES)
def test_a_page_far_behind_reads_what_it_shows(filled, name, newest_first):
    found = []

    def work(statements: Statements) -> None:
        query = QUERIES[name]
        found[:] = filled.history.deliveries(
            statements, query, MIDDLE, PAGE, newest_first=newest_first
        )

    read = rows_read(filled, work)
    assert len(found) == PAGE
    # Keys, then of each its delivery, message, recipient and queue row.
    assert read <= 6 * PAGE + 20


def test_what_an_owner_has_missed_is_found_by_sender(filled):
    after = f"msg_{MIDDLE[4:36]}"

    def work(statements: Statements) -> None:
        missing(statements, OWNED, later(0), None, after, PAGE)

    assert rows_read(filled, work) <= 5 * PAGE
