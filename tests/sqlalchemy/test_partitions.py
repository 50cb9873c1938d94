"""Partitioned tables, by the statements of the guide, do what others do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from places import Place, make_place
from sqlalchemy import text
from test_store import TestSqlStore as Contract

from thorn_core import Routing
from thorn_core.delivery import make_delivery
from thorn_core.testing.store_contract import make_message, make_subscription
from thorn_core.unit_of_work import IMMEDIATE
from thorn_core.values import new_id
from thorn_sqlalchemy import SqlStore

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
BLOCK = re.compile(r"^<!-- partitions: (.+?) -->\n```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATEMENTS = dict(BLOCK.findall(GUIDE.read_text("utf-8")))


def run(store: SqlStore, which: str, **instead: str) -> None:
    """Do what the guide says, for another time."""
    statements = STATEMENTS[which]
    for old, new in instead.items():
        assert old in statements
        statements = statements.replace(old, new)
    with store.database.engine.begin() as connection:
        # Not by SQLAlchemy, for which a % would begin a parameter.
        connection.connection.driver_connection.execute(statements)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory) -> Iterator[Place]:
    """A database of which the contract's ids, which begin with zeros, have a partition."""
    for place in make_place("postgresql", tmp_path_factory.mktemp("partitions")):
        store = SqlStore(place.url)
        store.create()
        run(store, "once")
        run(store, "a month", **{"2027-01-01": "1970-01-01", "2027-02-01": "1970-02-01"})
        store.close()
        yield place


class TestPartitionedStore(Contract):
    fan_out = 3000
    fan_out_memory = None


def test_a_month_is_where_its_ids_are_and_can_be_dropped(shared_place):
    store = SqlStore(shared_place.url)
    run(store, "a month")
    at = datetime(2027, 1, 10, tzinfo=UTC)
    message = make_message(id=new_id("msg", at), at=at)
    store.publish([message], within=IMMEDIATE)
    delivery = make_delivery(message, make_subscription(), at)
    store.route([Routing(message=message, deliveries=[delivery])])
    tables = ("thorn_messages_2027_01", "thorn_deliveries_2027_01")
    with store.database.engine.connect() as connection:
        for table in tables:
            counted = connection.execute(text(f"SELECT count(*) FROM {table}"))
            assert counted.scalar_one() == 1, table
    run(store, "drop")
    assert store.message(message.id) is None
    store.close()
