"""Processes are killed, connections broken, brokers restarted: nothing is lost or invented."""

from __future__ import annotations

import pytest
from kills.celery_kit import over_celery
from kills.sqlalchemy_kit import SqlAlchemyKit
from kills.verdict import check
from places import make_place
from scale import campaign, scaled, size

pytestmark = scaled


# With Django's store, the other pairs.
@pytest.fixture(
    params=[
        pytest.param(("rabbitmq", "postgresql"), id="rabbitmq-postgresql"),
        pytest.param(("redis", "mariadb"), id="redis-mariadb", marks=campaign),
    ]
)
def kit(request, tmp_path):
    broker, database = request.param
    for place in make_place(database, tmp_path):
        with over_celery(SqlAlchemyKit(place.url), broker) as kit:
            yield kit


# Fewer than the store is tested with: the engine is the same.
def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(kit, tmp_path):
    check(kit, tmp_path, messages=size(800, short=2000, long=20_000))
