"""The settings of the benchmarks' Django project.

BENCH_DATABASE is the URL of its database, BENCH_APPS names its apps.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import make_url


def database_of(url: str) -> dict[str, Any]:
    """A database as Django's settings have it, with what Django's and Thorn's guides advise."""
    parts = make_url(url)
    backend = parts.get_backend_name()
    if backend == "sqlite":
        options = {
            "timeout": 10,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;",
        }
    else:
        options = {"connect_timeout": 5}
    if backend == "mysql":
        import pymysql

        # The version of mysqlclient that Django wants.
        pymysql.version_info = (2, 2, 6, "final", 0)
        pymysql.install_as_MySQLdb()
    return {
        "ENGINE": f"django.db.backends.{'sqlite3' if backend == 'sqlite' else backend}",
        "NAME": parts.database,
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.host or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
        # As in a project that is meant to be fast: a worker's task makes no connection of its own.
        "CONN_MAX_AGE": 60,
    }


SECRET_KEY = "of the benchmarks"
DATABASES = {"default": database_of(os.environ["BENCH_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    *os.environ["BENCH_APPS"].split(),
]
USE_TZ = True
THORN_DISPATCHER = "outbox"
