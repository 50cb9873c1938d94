"""How many statements a delivery costs."""

from __future__ import annotations

from sqlalchemy import event

from thorn_core import Settings, Thorn, buffer_events
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore


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
    # Batches depend on timing; without them, there would be several statements per delivery.
    assert many < 2 * few
