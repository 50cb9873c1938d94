"""The settings of the benchmarks' Django project.

BENCH_DATABASE contains the URL of its database, BENCH_APPS the names of its apps.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import make_url


def database_of(url: str) -> dict[str, Any]:
    """Return a database for Django's settings, with the options that the guides recommend."""
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

        # The version of mysqlclient that Django requires.
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
        # Persistent connections, as in a fast project: tasks don't open their own.
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
