"""A database of every kind that the tests of a module use in turn, and leave without rows."""

from __future__ import annotations

from collections.abc import Iterator

import parts
import pytest
import thin

from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.schema import TABLES
from thorn_core.stores.sql.statements import Statements


@pytest.fixture(scope="module", params=thin.KINDS)
def shared_database(request, tmp_path_factory) -> Iterator[Database]:
    with thin.database(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def database(shared_database) -> Iterator[Database]:
    yield shared_database

    def empty(statements: Statements) -> None:
        for table in TABLES:
            statements.change(f"DELETE FROM ${table.name}")

    shared_database.run(empty)


@pytest.fixture
def store(database) -> parts.Parts:
    return parts.Parts(database)
