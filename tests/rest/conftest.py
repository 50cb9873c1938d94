"""Every carrier of the REST resource, with the same users behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The project that Django's carriers run in, which is one for this process.
sys.path.insert(0, str(Path(__file__).parents[1] / "django"))

import magazine_project
import rest_carriers

from thorn_core import make_default_app_by

magazine_project.configure()
make_default_app_by(None)


@pytest.fixture(scope="session", autouse=True)
def _databases() -> Iterator[None]:
    yield
    magazine_project.drop_databases()


@pytest.fixture(params=rest_carriers.CARRIERS)
def carrier(request: pytest.FixtureRequest) -> Iterator[rest_carriers.Carrier]:
    """One of them, on an empty store."""
    with rest_carriers.CARRIERS[request.param]() as carrier:
        yield carrier
