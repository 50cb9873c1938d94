"""The databases for benchmarks: a SQLite file, and available servers."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

SERVERS = {
    "PostgreSQL": os.environ.get(
        "THORN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
    ),
    "MariaDB": os.environ.get("THORN_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test"),
}
NAMES = ("SQLite", *SERVERS)


@contextlib.contextmanager
def database(name: str) -> Iterator[str | None]:
    """Yield the URL of an empty, temporary database; None if its server isn't available."""
    if name == "SQLite":
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{Path(directory, 'thorn.db')}"
        return
    url = make_url(SERVERS[name])
    admin = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    own = f"thorn_bench_{uuid.uuid4().hex[:8]}"
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {own}"))
    except SQLAlchemyError as error:
        print(f"    {name} is not available, so it is skipped: {error.__class__.__name__}")
        yield None
        return
    try:
        yield url.set(database=own).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            force = " WITH (FORCE)" if name == "PostgreSQL" else ""
            connection.execute(text(f"DROP DATABASE {own}{force}"))
        admin.dispose()


def analyze(engine: Engine, *tables: str) -> None:
    """Update a database's statistics of its tables now, instead of within a minute.

    Args:
        engine: The database's engine.
        *tables: Their names.
    """
    word = "ANALYZE TABLE" if engine.dialect.name in ("mysql", "mariadb") else "ANALYZE"
    with engine.begin() as connection:
        for table in tables:
            connection.execute(text(f"{word} {table}"))
