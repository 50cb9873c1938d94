"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import os

import pytest
from kills.sqlalchemy_kit import SqlAlchemyKit
from kills.verdict import check
from places import make_place

MESSAGES = int(os.environ.get("THORN_TEST_KILLS_MESSAGES", "20000"))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def place(request, tmp_path):
    yield from make_place(request.param, tmp_path)


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(place, tmp_path):
    check(SqlAlchemyKit(place.url), tmp_path, messages=MESSAGES)
