"""A database for each test, on every kind there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import thin

from thorn_core.stores.sql.database import Database


@pytest.fixture(params=thin.KINDS)
def database(request, tmp_path) -> Iterator[Database]:
    with thin.database(request.param, tmp_path) as made:
        yield made
