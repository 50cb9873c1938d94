"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import pytest
from kills.sqlalchemy_kit import SqlAlchemyKit
from kills.verdict import check
from places import make_place
from scale import campaign, scaled, size

pytestmark = scaled


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=campaign)])
def place(request, tmp_path):
    yield from make_place(request.param, tmp_path)


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(place, tmp_path):
    check(SqlAlchemyKit(place.url), tmp_path, messages=size(2000, short=6000, long=60_000))
