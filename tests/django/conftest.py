"""Django's databases: SQLite in a file, PostgreSQL, MariaDB; made once, empty for each test."""

from __future__ import annotations

from collections.abc import Iterator

import magazine_project
import pytest

from thorn_core import make_default_app_by

magazine_project.configure()
# Tests of others in this process have no project.
make_default_app_by(None)


@pytest.fixture(scope="session")
def _databases() -> Iterator[None]:
    yield
    magazine_project.drop_databases()


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    """The project's app is there when it is needed; nothing is left to the next test."""
    from django.db import connections

    from thorn_django import app

    make_default_app_by(app.make_app)
    yield
    make_default_app_by(None)
    app.setting_changed(setting="THORN_STORE")
    connections.close_all()


@pytest.fixture(params=magazine_project.ALIASES)
def alias(request: pytest.FixtureRequest, _databases: None) -> Iterator[str]:
    """Any database, empty, and where the magazine's models are while the test runs."""
    yield from emptied(request.param)


@pytest.fixture(params=["postgresql", "mariadb"])
def server_alias(request: pytest.FixtureRequest, _databases: None) -> Iterator[str]:
    """A database on a server, empty."""
    yield from emptied(request.param)


@pytest.fixture
def postgresql_alias(_databases: None) -> Iterator[str]:
    """The database on PostgreSQL, empty."""
    yield from emptied("postgresql")


@pytest.fixture
def mariadb_alias(_databases: None) -> Iterator[str]:
    """The database on MariaDB, empty."""
    yield from emptied("mariadb")


@pytest.fixture
def default_alias(_databases: None) -> Iterator[str]:
    """The SQLite database, for what is the same on every one."""
    yield from emptied("default")


@pytest.fixture
def other_alias(_databases: None) -> Iterator[str]:
    """Another SQLite database."""
    magazine_project.make_database("other")
    magazine_project.clear_database("other")
    return "other"


def emptied(alias: str) -> Iterator[str]:
    from magazine import routing

    magazine_project.make_database(alias)
    magazine_project.clear_database(alias)
    with routing.to(alias):
        yield alias
