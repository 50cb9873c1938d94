"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import os

import pytest
from celery_kit import CeleryKit
from celery_world import broker_of
from kills.verdict import check
from places import make_place

# Fewer than the store is tested with: the engine is the same.
MESSAGES = int(os.environ.get("THORN_TEST_KILLS_MESSAGES", "4000"))


@pytest.fixture(params=[("rabbitmq", "postgresql"), ("redis", "mariadb")], ids="-".join)
def kit(request, tmp_path):
    kind, database = request.param
    for place in make_place(database, tmp_path):
        with broker_of(kind) as broker:
            yield CeleryKit(place.url, broker.url, broker.name)


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(kit, tmp_path):
    check(kit, tmp_path, messages=MESSAGES)
