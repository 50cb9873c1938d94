"""How many statements a delivery costs, and by which indexes they find what they look for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text

from thorn_core import Settings, Thorn, buffer_events
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)
PENDING = 20_000
RECIPIENTS = 100


def counted(engine):
    """A list that each statement sent to the database is added to."""
    statements: list[tuple[str, object]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def count(connection, cursor, statement, parameters, context, executemany):
        statements.append((statement, parameters))

    return statements


def test_statements_per_delivery_are_few_and_constant(place):
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        concurrency=64,
        recipient_concurrency=64,
    )
    made = []
    with (
        LocalRecipient() as recipient,
        Thorn(store=SqlStore(place.url), dispatcher="outbox", settings=settings) as app,
    ):
        app.store.create()
        app.subscribe("order.*", recipient.url)
        statements = counted(app.store.engine)
        for number in (300, 1200):
            with buffer_events():
                for n in range(number):
                    app.send("order.paid", {"n": n})
            statements.clear()
            assert app.worker().drain() == number
            made.append(len(statements) / number)
        assert {delivery.state for delivery in app.deliveries()} == {"delivered"}
    few, many = made
    assert few < 1
    assert many < 1.2 * few


def fill(store: SqlStore, *, sudden: bool = False) -> None:
    """Many pending deliveries, as many that are done, and messages of both.

    The server is told to look how many there are of each, unless it is `sudden`.
    """
    at = int(NOW.timestamp() * 1_000_000)
    tables = store.tables
    deliveries = [
        {
            "id": f"dlv_{n:032x}_{0:032x}",
            "message_id": f"msg_{n:032x}",
            "subscription_id": f"sub_{n % 7:032x}",
            "event": "a.b",
            "recipient": f"r{n % RECIPIENTS}.example.com:443",
            "state": "pending" if n % 2 else "delivered",
            "attempt_count": 0,
            "attempts_before": 0,
            "due_at": at + n,
            "ready_at": at + n if n % 2 else None,
            "created_at": at,
        }
        for n in range(2 * PENDING)
    ]
    messages = [
        {
            "id": f"msg_{n:032x}",
            "event": "a.b",
            "data": b"{}",
            "at": at,
            "route_at": None if n % 10 else 0,
        }
        for n in range(2 * PENDING)
    ]
    recipients = [
        {"recipient": f"r{n}.example.com:443", "ready_at": at, "paused_until": 0}
        for n in range(RECIPIENTS)
    ]
    with store.engine.begin() as connection:
        connection.execute(tables.deliveries.insert(), deliveries)
        connection.execute(tables.messages.insert(), messages)
        connection.execute(tables.recipients.insert(), recipients)
    if sudden:
        return
    with store.engine.begin() as connection:
        for table in (tables.deliveries, tables.messages, tables.recipients):
            analyze = "ANALYZE TABLE" if connection.dialect.name == "mysql" else "ANALYZE"
            connection.execute(text(f"{analyze} {table.name}"))


def scans(store: SqlStore, statement: str, parameters) -> list[str]:
    """Which of the large tables the database would read from end to end."""
    tables = {store.tables.deliveries.name, store.tables.messages.name}
    with store.engine.connect() as connection:
        name = connection.dialect.name
        prefix = {
            "sqlite": "EXPLAIN QUERY PLAN ",
            "postgresql": "EXPLAIN (FORMAT JSON) ",
            "mysql": "EXPLAIN ",
        }[name]
        rows = connection.exec_driver_sql(prefix + statement, parameters).all()
    if name == "sqlite":
        plans = [row.detail for row in rows]
        return [p for p in plans if p.startswith("SCAN") and p.split()[1] in tables]
    if name == "mysql":
        return [str(row) for row in rows if row.type == "ALL" and row.table in tables]
    return [
        str(node)
        for node in nodes(rows[0][0][0]["Plan"])
        if node["Node Type"] == "Seq Scan" and node.get("Relation Name") in tables
    ]


def plan_of(store, statement, parameters):
    """PostgreSQL's plan."""
    with store.engine.connect() as connection:
        explain = f"EXPLAIN (FORMAT JSON) {statement}"
        return connection.exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"]


def nodes(plan):
    """A node of a plan, and those below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def looked_at(store):
    """The statements by which workers look for work, with their parameters."""
    statements = counted(store.engine)
    now = NOW + timedelta(hours=1)
    claims = [
        store.claim(
            now=now, lease=LEASE, limit=50, token=f"t{n}", per_recipient=16, busy={"r1": 16}
        )
        for n in range(2)
    ]
    assert [len(some) for some in claims] == [50, 50]
    store.renew(claims[0], until=now + LEASE)
    store.release(claims[0])
    assert store.claim_messages(now=now, lease=LEASE, limit=100)
    store.next_due(now)
    found = [
        (statement, parameters)
        for statement, parameters in statements
        if statement.lstrip().startswith(("SELECT", "UPDATE"))
    ]
    assert len(found) > 15
    return found


def test_what_a_worker_does_is_found_by_indexes_however_much_there_is(place):
    store = SqlStore(place.url)
    store.create()
    fill(store)
    for statement, parameters in looked_at(store):
        assert scans(store, statement, parameters) == [], statement
    store.close()


def test_a_sudden_backlog_is_read_in_its_order_and_not_sorted(place):
    if place.kind != "postgresql":
        pytest.skip("only PostgreSQL plans by what it has counted before")
    store = SqlStore(place.url)
    store.create()
    fill(store, sudden=True)
    locking = [some for some in looked_at(store) if "SKIP LOCKED" in some[0]]
    assert len(locking) > 4
    for statement, parameters in locking:
        types = [node["Node Type"] for node in nodes(plan_of(store, statement, parameters))]
        assert "Sort" not in types, statement
    store.close()
