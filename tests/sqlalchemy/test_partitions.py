"""Partitioned tables, by the statements of the guide, do what others do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from places import Place, make_place
from sqlalchemy import text
from test_store import TestSqlStore as Contract

from thorn_core.keys import new_id
from thorn_core.testing.store_contract import make_message, make_subscription
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
    with store.engine.begin() as connection:
        # Not by SQLAlchemy, for which a % would begin a parameter.
        connection.connection.driver_connection.execute(statements)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory) -> Iterator[Place]:
    """A database of which the contract's ids, which begin with zeros, have a partition."""
    for place in make_place("postgresql", tmp_path_factory.mktemp("partitions")):
        store = SqlStore(place.url)
        store.create()
        run(store, "once", **{"2027-01-01": "1970-01-01", "2030-12-01": "1970-02-01"})
        store.close()
        yield place


class TestPartitionedStore(Contract):
    fan_out = 3000
    fan_out_memory = None


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    yield from make_place("postgresql", tmp_path)


def test_a_month_is_where_its_ids_are_and_can_be_dropped_when_nothing_waits(place):
    store = SqlStore(place.url)
    store.create()
    contract, at = TestPartitionedStore(), datetime(2027, 1, 10, tzinfo=UTC)
    before, after = (make_message(id=new_id("msg", at), at=at) for _ in range(2))
    later = make_message(id=new_id("msg", at + timedelta(days=40)), at=at + timedelta(days=40))
    run(store, "once")
    for message in (before, after, later):
        contract.deliver(store, message, make_subscription())
    counts = {"messages_2027_01": 2, "deliveries_2027_01": 2, "messages_2027_02": 1}
    with store.engine.connect() as connection:
        for table, count in counts.items():
            counted = connection.execute(text(f"SELECT count(*) FROM thorn_{table}"))
            assert counted.scalar_one() == count, table
    with pytest.raises(psycopg.Error, match="unfinished work"):
        run(store, "drop")
    claims = contract.claim(store, now=at, message_ids=[before.id, after.id])
    store.record([contract.completion(claim, at=at) for claim in claims])
    run(store, "drop")
    assert store.message(before.id) is None
    assert store.message(later.id) == later
    store.close()
