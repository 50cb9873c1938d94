"""Engines: created from a database URL, and compared."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from thorn_core import ConfigurationError

POSTGRESQL, MYSQL, SQLITE = "postgresql", "mysql", "sqlite"
# The SQL store's dialects by SQLAlchemy's names.
DIALECTS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL, "sqlite": SQLITE}
# The drivers of the package's extras, which have the names of the dialects.
DRIVERS = {POSTGRESQL: "psycopg", MYSQL: "pymysql"}
SUPPORTED = "PostgreSQL 13, MariaDB 10.6, MySQL 8 or SQLite 3.35, or a newer version"

# Seconds to wait for a lock, on SQLite for another writer. A longer transaction is stuck.
LOCK_TIMEOUT = 10
# The maximum duration of a statement in seconds: a purge of a large batch takes long.
STATEMENT_TIMEOUT = 300
CONNECT_TIMEOUT = 5
LIBPQ = ("psycopg", "psycopg2")
MYSQL_DRIVERS = ("pymysql", "mysqldb")
# Keep-alive settings that detect a broken network: in seconds, the last one in milliseconds.
LIVENESS = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# The key in a connection's `info` for an object whose `over` runs when the connection returns to
# its pool.
FOLLOWING = "thorn_following"


def engine_of(source: str | URL | Engine) -> Engine:
    """Create the engine of a database URL; return an engine unchanged.

    A SQLite file is opened in WAL mode with a busy timeout and full synchronisation: commits
    survive a power failure, and readers don't wait for the writer.

    Raises:
        ConfigurationError: The URL is invalid, its driver is asynchronous or not installed, or the
            database isn't supported.
    """
    engine = _engine_of(source)
    if engine.dialect.name not in DIALECTS:
        raise ConfigurationError(
            f"store={shown(engine.url)!r}: {engine.dialect.name} isn't supported; use {SUPPORTED}"
        )
    return engine


def _engine_of(source: str | URL | Engine) -> Engine:
    if not isinstance(source, str | URL):
        if not isinstance(source, Engine):
            raise ConfigurationError(
                f"store={source!r} can't be used from threads; use a database URL with a"
                f" synchronous driver (psycopg, pymysql, sqlite), or an Engine"
            )
        return source
    try:
        url = make_url(source)
        asynchronous = url.get_dialect().is_async
        if not asynchronous:
            engine = create_engine(url, **_options(url))
            _prepare(engine)
            return engine
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        said = str(error).replace(str(source), shown(source))
        raise ConfigurationError(
            f"store={shown(source)!r} is not a database URL: {said}; write"
            " sqlite:///thorn.db or postgresql+psycopg://user@host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver of {shown(source)} isn't installed ({error}); {_driver_advice(source)}"
        ) from error
    raise ConfigurationError(
        f"the driver of {shown(url)} is asynchronous; use a synchronous one, such as"
        " postgresql+psycopg, mysql+pymysql or sqlite"
    )


def _driver_advice(source: str | URL) -> str:
    url = make_url(source)
    backend = url.get_backend_name()
    dialect = DIALECTS.get(backend, "")
    if dialect not in DRIVERS:
        return "install it"
    driver = DRIVERS[dialect]
    advice = []
    if url.drivername != f"{backend}+{driver}":
        advice.append(f"write {backend}+{driver}://")
    if importlib.util.find_spec(driver) is None:
        advice.append(f"pip install 'thorn-sqlalchemy[{dialect}]'")
    return ", and ".join(advice) or "reinstall it"


def shown(url: str | URL) -> str:
    """Return a URL without passwords."""
    try:
        url = make_url(url)
    except (ArgumentError, ValueError):
        return str(url).partition("@")[0].partition(":")[0] + ":…"
    hidden = {name: "***" for name in url.query if "pass" in name.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _options(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    # Parameters contain payloads and secrets, and errors are logged.
    options: dict[str, Any] = {"hide_parameters": True}
    if backend == "sqlite":
        options["connect_args"] = {"timeout": LOCK_TIMEOUT}
        if in_memory(url):
            # The only connection holds the database; one thread uses it at a time.
            options |= {"poolclass": OneConnection, "pool_size": 1, "max_overflow": 0}
            options["connect_args"]["check_same_thread"] = False
    elif backend == "postgresql":
        options["pool_recycle"] = 3600
        if url.get_driver_name() in LIBPQ:
            options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT, **LIVENESS}
    elif backend in DIALECTS:
        options |= {"isolation_level": "READ COMMITTED", "pool_recycle": 3600}
        if url.get_driver_name() in MYSQL_DRIVERS:
            options["connect_args"] = {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": STATEMENT_TIMEOUT,
                "write_timeout": STATEMENT_TIMEOUT,
            }
        if url.get_driver_name() == "mysqldb":
            # Otherwise it writes bytes as text, and the server changes some of them.
            options["connect_args"]["binary_prefix"] = True
    return options


class OneConnection(QueuePool):
    """A pool of one connection, which the connection's return callbacks may use."""

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        following = record.info.pop(FOLLOWING, None)
        super()._do_return_conn(record)
        if following is not None:
            following.over()


def in_memory(url: URL) -> bool:
    """Return True if a SQLite URL means a database in memory."""
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:") or "mode=memory" in str(url)
    )


# -- connections of engines created here


def _prepare(engine: Engine) -> None:
    name = DIALECTS.get(engine.dialect.name)
    if name == SQLITE:
        event.listen(engine, "connect", _prepare_sqlite)
    elif name == MYSQL:
        event.listen(engine, "connect", _prepare_mysql)
    elif engine.dialect.driver == "psycopg":
        event.listen(engine, "connect", _prepare_psycopg)


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT * 1000}")
    with contextlib.suppress(sqlite3.OperationalError):  # The database is read-only, or in memory.
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _prepare_mysql(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    # MySQL ignores the part for MariaDB as a comment.
    cursor.execute(
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}"
        f" /*M!100600 , max_statement_time = {STATEMENT_TIMEOUT} */"
    )
    cursor.close()


def _prepare_psycopg(connection: Any, record: object) -> None:
    # Behind a pooler, a prepared statement may be missing on the next connection, or belong to
    # another program.
    if pooled(connection):
        connection.prepare_threshold = None


def pooled(connection: Any) -> bool:
    """Return True if a libpq connection goes to a pooler: PgBouncer reports no real process id."""
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    (pid,) = cursor.fetchone()
    cursor.close()
    connection.rollback()
    return bool(pid != connection.info.backend_pid)


# -- comparison of databases


def same_database(one: Engine, other: Engine, aliases: Sequence[URL] = ()) -> bool:
    """Return True if two engines use one database, so that transactions of both can hold its rows.

    Args:
        one: The first engine.
        other: The second engine.
        aliases: Further URLs of the first engine's database, such as a pooler's.
    """
    if one is other or one.pool is other.pool:
        return True
    if in_memory(one.url) or in_memory(other.url):
        return False
    return _place(other.url) in [_place(url) for url in (one.url, *aliases)]


def _place(url: URL) -> tuple[Any, ...]:
    backend = DIALECTS.get(url.get_backend_name(), url.get_backend_name())
    ports = {POSTGRESQL: 5432, MYSQL: 3306}
    if backend == SQLITE:
        return (backend, os.path.realpath(url.database or ""), url.query)
    host = "localhost" if url.host in (None, "127.0.0.1", "::1") else url.host
    return (backend, host, url.port or ports.get(backend), url.database)
