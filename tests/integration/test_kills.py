"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator

import pytest
from kills.run import Run
from kills.sqlalchemy_kit import SqlAlchemyKit
from kills.verdict import faults_of
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

MESSAGES = int(os.environ.get("THORN_TEST_KILLS_MESSAGES", "20000"))
SERVERS = {
    "postgresql": os.environ.get(
        "THORN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
    ),
    "mariadb": os.environ.get("THORN_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test"),
}


@pytest.fixture(params=["sqlite", *SERVERS])
def database(request, tmp_path) -> Iterator[str]:
    """The URL of a database of the test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'thorn.db'}"
        return
    url = make_url(SERVERS[request.param])
    admin = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    name = f"thorn_{uuid.uuid4().hex[:12]}"
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except SQLAlchemyError as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{request.param} is needed: {error}")
        pytest.skip(f"{request.param} isn't there: {error}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if request.param == "postgresql" else ""
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        admin.dispose()


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(database, tmp_path):
    seed = int(os.environ.get("THORN_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"again by: THORN_TEST_SEED={seed}")
    run = Run(SqlAlchemyKit(database), tmp_path, seed=seed, messages=MESSAGES)
    outcome = run.go()
    print(outcome.faults, len(outcome.truth), "messages,", len(outcome.arrivals), "requests")
    faults = faults_of(outcome)
    print(*faults[:20], sep="\n")
    assert len(outcome.truth) >= MESSAGES
    assert outcome.faults["worker killed"] > 3
    assert outcome.faults["writer killed"] > 1
    assert not faults, f"{len(faults)} faults, printed above"
