"""An executor of Thorn's SQL store on bare psycopg 3; docs/extending/executor.md explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from queue import Empty, LifoQueue
from typing import Any

import psycopg

from thorn_core import UnitOfWork
from thorn_core.ports import Column, Connection, Failure
from thorn_core.stores.sql import Transaction, begin, borrow, failure_of

CONNECTIONS = 8


class PsycopgConnection:
    def __init__(self, driver: psycopg.Connection) -> None:
        self.driver = driver

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self.driver.execute(sql.encode(), params)
        return cursor.fetchall() if cursor.description else []

    def change(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self.driver.execute(sql.encode(), params).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.driver.cursor().executemany(sql.encode(), rows)

    def insert_many(
        self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]]
    ) -> None:
        names = ", ".join(f'"{column.name}"' for column in columns)
        with self.driver.cursor().copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)


class PsycopgExecutor:
    """Lends the SQL store up to eight connections to a PostgreSQL database."""

    dialect, placeholder, max_bytes = "postgresql", "%s", 1_000_000_000
    embedded = creates = False
    options = "-c lock_timeout=10s -c statement_timeout=60s"
    way_out = "thorn --app module:attribute init-db"

    def __init__(self, url: str) -> None:
        self.url, self.place = url, url.rpartition("@")[2]
        self._pools: list[LifoQueue[psycopg.Connection | None]] = []
        self.after_fork()

    @contextmanager
    def reading(self) -> Iterator[PsycopgConnection]:
        pool = self._pools[-1]
        try:
            driver = pool.get(timeout=10)
        except Empty:
            raise psycopg.OperationalError(f"all connections to {self.place} are in use") from None
        try:
            if driver is None or driver.closed:
                driver = psycopg.connect(self.url, autocommit=True, options=self.options)
                driver.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            yield PsycopgConnection(driver)
        finally:
            pool.put(driver)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[PsycopgConnection]:
        with self.reading() as connection, connection.driver.transaction():
            yield connection

    def begin(self) -> AbstractContextManager[Transaction]:
        return begin(self)

    def borrow(self, unit: UnitOfWork) -> Connection | None:
        return borrow(self, unit)

    def classify(self, error: BaseException) -> Failure | None:
        if isinstance(error, psycopg.DataError | UnicodeEncodeError):
            return Failure.DATA
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            return Failure.LOST
        return failure_of(error) or Failure.OTHER if isinstance(error, psycopg.Error) else None

    @contextmanager
    def listening(self, channel: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url, autocommit=True) as driver:
            driver.execute(f'LISTEN "{channel}"'.encode())
            yield driver

    def before_fork(self) -> None: ...

    def after_fork(self) -> None:
        # Keeps the parent's connections: closing one here would end the parent's session.
        self._pools.append(LifoQueue())
        for _ in range(CONNECTIONS):
            self._pools[-1].put(None)

    def close(self) -> None:
        for driver in [self._pools[-1].get() for _ in range(self._pools[-1].qsize())]:
            if driver is not None:
                driver.close()
            self._pools[-1].put(None)
