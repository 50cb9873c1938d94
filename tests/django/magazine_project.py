"""The Django project of the tests: its settings, and its databases, each made when first needed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import django
import pymysql
import pytest
from django.conf import settings

POSTGRESQL = os.environ.get(
    "THORN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
)
MARIADB = os.environ.get("THORN_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test")
SERVERS = {"postgresql": POSTGRESQL, "mariadb": MARIADB}
ALIASES = ("default", "postgresql", "mariadb")
BACKENDS = {"postgresql": "postgresql", "mariadb": "mysql"}

_directory = tempfile.mkdtemp(prefix="thorn_django_")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)


def _server(kind: str, **options: Any) -> dict[str, Any]:
    url = urlsplit(SERVERS[kind])
    return {
        "ENGINE": f"django.db.backends.{BACKENDS[kind]}",
        "NAME": f"thorn_{uuid.uuid4().hex[:12]}",
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname,
        "PORT": str(url.port or ""),
        "OPTIONS": {"connect_timeout": 5, **options},
    }


def _sqlite(name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(_directory) / name),
        "OPTIONS": {
            "timeout": 10,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;",
        },
    }


DATABASES = {
    "default": _sqlite("default.sqlite3"),
    "other": _sqlite("other.sqlite3"),
    # As Django's test runner makes of a SQLite database.
    "memory": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "file:memorydb_thorn?mode=memory&cache=shared",
    },
    "postgresql": _server("postgresql"),
    "mariadb": _server("mariadb"),
}


def configure() -> None:
    """Configure Django, once for this process."""
    if settings.configured:
        return
    pymysql.version_info = (2, 2, 6, "final", 0)
    pymysql.install_as_MySQLdb()
    settings.configure(
        SECRET_KEY="of the tests",
        ALLOWED_HOSTS=["*"],
        DATABASES=DATABASES,
        DATABASE_ROUTERS=["magazine.routing.Router"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "rest_framework",
            "drf_spectacular",
            "thorn_django",
            "magazine",
            "eventing",
        ],
        ROOT_URLCONF="magazine.urls",
        THORN_DISPATCHER="outbox",
        USE_TZ=True,
    )
    django.setup()


# -- databases

_made: set[str] = set()


def make_database(alias: str) -> None:
    """Make a database with all tables, if it isn't there yet; skips if its server isn't there."""
    from django.core.management import call_command

    if alias in _made:
        return
    if alias in SERVERS:
        with administered(alias) as cursor:
            # utf8mb4, as Django's documentation asks for.
            words = " CHARACTER SET utf8mb4" if alias == "mariadb" else ""
            cursor.execute(f"CREATE DATABASE {DATABASES[alias]['NAME']}{words}")
    call_command("migrate", database=alias, verbosity=0, interactive=False, run_syncdb=True)
    _made.add(alias)


def drop_databases() -> None:
    """Drop what `make_database` made."""
    from django.db import connections

    for alias in list(_made):
        connections[alias].close()
        if alias in SERVERS:
            with administered(alias) as cursor:
                force = " WITH (FORCE)" if alias == "postgresql" else ""
                cursor.execute(f"DROP DATABASE {DATABASES[alias]['NAME']}{force}")
        _made.discard(alias)


@contextmanager
def administered(alias: str) -> Iterator[Any]:
    """A cursor on the server of a database, in the server's own database."""
    from django.db import OperationalError, connections

    wrapper = connections.create_connection(alias)
    name = urlsplit(SERVERS[alias]).path.lstrip("/")
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": name}
    try:
        cursor = wrapper.cursor()
    except OperationalError as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{alias} is needed: {error}")
        pytest.skip(f"{alias} isn't there: {error}")
    try:
        with cursor:
            yield cursor
    finally:
        wrapper.close()


def clear_database(alias: str) -> None:
    """Delete every row of Thorn's tables and the magazine's."""
    from django.apps import apps
    from django.db import connections

    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        if connections[alias].vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
        if connections[alias].vendor == "postgresql":
            cursor.execute("SET session_replication_role = replica")
        for label in ("magazine", "eventing", "thorn_django", "auth"):
            for model in apps.get_app_config(label).get_models(include_auto_created=True):
                if not (model._meta.proxy or model._meta.swapped):
                    table = connections[alias].ops.quote_name(model._meta.db_table)
                    cursor.execute(f"DELETE FROM {table}")
        if connections[alias].vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 1")
        if connections[alias].vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = ON")
        if connections[alias].vendor == "postgresql":
            cursor.execute("SET session_replication_role = DEFAULT")
