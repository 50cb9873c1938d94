"""Databases: SQLite in memory and in a file, PostgreSQL, MariaDB; an own schema for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import attrs
import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

POSTGRESQL = os.environ.get(
    "THORN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
)
MARIADB = os.environ.get("THORN_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test")
SERVERS = {"postgresql": POSTGRESQL, "mariadb": MARIADB}


def admin_of(name: str) -> Engine:
    """An engine that may make databases; skips the test if the server isn't there."""
    url = make_url(SERVERS[name])
    engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    try:
        with engine.connect():
            return engine
    except SQLAlchemyError as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{name} is needed: {error}")
        pytest.skip(f"{name} isn't there: {error}")


@attrs.frozen
class Place:
    """A database of a test's own.

    Attributes:
        kind: `memory`, `sqlite`, `postgresql` or `mariadb`.
        url: Its URL.
    """

    kind: str
    url: str


def make_place(kind: str, tmp_path) -> Iterator[Place]:
    """A database for one test, gone afterwards."""
    if kind == "memory":
        yield Place(kind, "sqlite://")
        return
    if kind == "sqlite":
        yield Place(kind, f"sqlite:///{tmp_path / 'thorn.db'}")
        return
    admin = admin_of(kind)
    name = f"thorn_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        url = admin.url.set(database=name)
        yield Place(kind, url.render_as_string(hide_password=False))
    finally:
        with admin.connect() as connection:
            force = " WITH (FORCE)" if kind == "postgresql" else ""
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        admin.dispose()
