"""Thin executors on sqlite3, psycopg and PyMySQL, and databases of a test's own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pymysql
import pytest

from thorn_core.ports.executor import Failure
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.schema import TABLES
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import Wording

KINDS = ("sqlite", "postgresql", "mariadb")
DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "mariadb": "mysql"}
PASSING = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


class ThinConnection:
    """A connection of a DB-API driver, as the port has it."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.ran: list[tuple[str, Sequence[Any]]] = []

    def _cursor(self, sql: str, params: Sequence[Any]) -> Any:
        self.ran.append((sql, params))
        cursor = self.raw.cursor()
        cursor.execute(sql, tuple(params))
        return cursor

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._cursor(sql, params)
        return list(cursor.fetchall()) if cursor.description else []

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self._cursor(sql, params).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.raw.cursor().executemany(sql, [tuple(row) for row in rows])

    def insert_many(
        self, table: str, columns: Sequence[Any], rows: Sequence[Sequence[Any]]
    ) -> None:
        mark = "?" if isinstance(self.raw, sqlite3.Connection) else "%s"
        names = ", ".join(column.name for column in columns)
        marks = ", ".join(mark for _ in columns)
        self.execute_many(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)


class ThinExecutor:
    """A new connection for each transaction."""

    embedded = creates = False
    max_bytes = 1 << 24
    way_out = "tests/sql/thin.py"

    def __init__(self, kind: str, place: str) -> None:
        self.kind, self.place, self.dialect = kind, place, DIALECTS[kind]
        self.placeholder = "?" if kind == "sqlite" else "%s"

    def connect(self) -> Any:
        if self.kind == "sqlite":
            raw = sqlite3.connect(self.place, timeout=20, isolation_level=None)
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("PRAGMA synchronous=OFF")
            return raw
        if self.kind == "postgresql":
            return psycopg.connect(f"postgresql://postgres@127.0.0.1/{self.place}", autocommit=True)
        return pymysql.connect(
            host="127.0.0.1",
            user="root",
            database=self.place,
            autocommit=True,
            client_flag=pymysql.constants.CLIENT.FOUND_ROWS,
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[ThinConnection]:
        with contextlib.closing(self.connect()) as raw:
            cursor = raw.cursor()
            cursor.execute("BEGIN IMMEDIATE" if self.kind == "sqlite" else "BEGIN")
            try:
                yield ThinConnection(raw)
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[ThinConnection]:
        with contextlib.closing(self.connect()) as raw:
            yield ThinConnection(raw)

    def borrow(self, unit: Any) -> None:
        return None

    def classify(self, error: BaseException) -> Failure | None:
        if isinstance(error, sqlite3.IntegrityError | psycopg.errors.UniqueViolation):
            return Failure.DUPLICATE
        if isinstance(error, PASSING):
            return Failure.RETRY
        if isinstance(error, pymysql.err.MySQLError):
            code = error.args[0] if error.args else None
            return {1062: Failure.DUPLICATE, 1213: Failure.RETRY}.get(code, Failure.OTHER)
        if isinstance(error, sqlite3.Error | psycopg.Error):
            return Failure.OTHER
        return None

    def begin(self) -> Any:
        return self.transaction()

    def listening(self, channel: str) -> None:
        return None

    def before_fork(self) -> None:
        return None

    def after_fork(self) -> None:
        return None

    def close(self) -> None:
        return None


def _server(kind: str) -> Any:
    try:
        if kind == "postgresql":
            return psycopg.connect("postgresql://postgres@127.0.0.1/postgres", autocommit=True)
        return pymysql.connect(host="127.0.0.1", user="root", autocommit=True)
    except (psycopg.OperationalError, pymysql.err.OperationalError) as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{kind} is needed: {error}")
        pytest.skip(f"{kind} isn't there: {error}")


@contextlib.contextmanager
def database(kind: str, folder: Any, **words: Any) -> Iterator[Database]:
    """A database with the tables, gone afterwards."""
    with contextlib.ExitStack() as stack:
        place = str(folder / "thorn.db")
        if kind != "sqlite":
            place = f"thorn_{uuid.uuid4().hex[:12]}"
            server = stack.enter_context(contextlib.closing(_server(kind)))
            server.cursor().execute(f"CREATE DATABASE {place}")
            force = " WITH (FORCE)" if kind == "postgresql" else ""
            stack.callback(lambda: server.cursor().execute(f"DROP DATABASE {place}{force}"))
        executor = ThinExecutor(kind, place)
        wording = Wording(executor.dialect, executor.placeholder, "thorn_", None, **words)
        with executor.transaction() as connection:
            Statements(connection, wording).create(TABLES)
        yield Database(executor, wording)
