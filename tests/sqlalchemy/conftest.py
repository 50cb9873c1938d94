"""Databases: SQLite in memory and in a file, PostgreSQL, MariaDB; an own schema for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from places import Place, make_place


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def place(request, tmp_path) -> Iterator[Place]:
    """A database that other processes can use too."""
    yield from make_place(request.param, tmp_path)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def shared_place(request, tmp_path_factory) -> Iterator[Place]:
    """A database that the tests of a module share, and other processes can use too."""
    yield from make_place(request.param, tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def reused(tmp_path_factory) -> Iterator[Callable[[str], Place]]:
    """Gives databases by kind that tests of a module use in turn, and leave without rows."""
    places: dict[str, Place] = {}
    with ExitStack() as stack:

        def reused(kind: str) -> Place:
            if kind not in places:
                made = contextmanager(make_place)(kind, tmp_path_factory.mktemp(kind))
                places[kind] = stack.enter_context(made)
            return places[kind]

        yield reused


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb"])
def any_place(request, tmp_path) -> Iterator[Place]:
    """Any database."""
    yield from make_place(request.param, tmp_path)
