"""The database: its engine, transactions that are tried again, and what its errors mean."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeout,
)

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    create_engine,
    event,
    inspect,
    make_url,
    select,
)
from thorn_core import ConfigurationError, StoreError
from thorn_sqlalchemy.schema import REVISION, Tables

T = TypeVar("T")

MYSQL = ("mysql", "mariadb")
# Of a transaction that met another's: deadlock, serialization failure, lock not had in time.
TRIES = 5
CONFLICTS = {"40001", "40P01", "55P03", 1020, 1205, 1213}
# Milliseconds that SQLite waits for another writer.
BUSY_TIMEOUT = 10_000
CONNECT_TIMEOUT = 5


def engine_of(source: str | URL | Engine) -> Engine:
    """Make the engine of a database URL; an engine is taken as it is.

    A SQLite file is opened in WAL mode with a busy timeout and full synchronisation: what is
    committed outlives a power failure, and readers don't wait for the writer.

    Raises:
        ConfigurationError: The URL isn't one, its driver isn't installed or is asynchronous.
    """
    if not isinstance(source, str | URL):
        if not isinstance(source, Engine):
            raise ConfigurationError(
                f"store={source!r} can't be used from threads; give the URL of the database with a"
                " synchronous driver (psycopg, pymysql, sqlite), or an Engine"
            )
        return source
    try:
        url = make_url(source)
        if url.get_dialect().is_async:
            raise ConfigurationError(
                f"the driver of {shown(url)} is asynchronous; name a synchronous one, such as"
                " postgresql+psycopg, mysql+pymysql or sqlite"
            )
        return create_engine(url, **_engine_options(url))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(
            f"store={shown(source)!r} is no URL of a database: {error}; write"
            " sqlite:///thorn.db or postgresql+psycopg://user@host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver of {shown(source)} isn't installed ({error}); pip install"
            " 'thorn-sqlalchemy[postgresql]' or 'thorn-sqlalchemy[mysql]'"
        ) from error


def shown(url: str | URL) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return str(url).partition("@")[0].partition(":")[0] + ":…"


def _engine_options(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT / 1000}}
        if in_memory(url):
            from sqlalchemy.pool import QueuePool

            # The database is its only connection, which one thread has at a time.
            options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
            options["connect_args"]["check_same_thread"] = False
        return options
    if backend == "postgresql":
        return {"connect_args": {"connect_timeout": CONNECT_TIMEOUT}, "pool_recycle": 3600}
    if backend in MYSQL:
        return {"isolation_level": "READ COMMITTED", "pool_recycle": 3600}
    return {}


def in_memory(url: URL) -> bool:
    """True if a SQLite URL is that of a database in memory."""
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:") or "mode=memory" in str(url)
    )


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
    with contextlib.suppress(sqlite3.OperationalError):  # read-only, or in memory
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


class Database:
    """Where a store's tables are.

    Args:
        source: A URL, or an engine of the user's.
        tables: The tables.

    Raises:
        ConfigurationError: As `engine_of`.
    """

    def __init__(self, source: str | URL | Engine, tables: Tables) -> None:
        self.tables = tables
        self.engine = engine_of(source)
        self.owned = not isinstance(source, Engine)
        self.name = self.engine.dialect.name
        self._created = False
        if self.name == "sqlite" and self.owned:
            event.listen(self.engine, "connect", _prepare_sqlite)
        # Statements of one transaction must see what others have committed meanwhile.
        self._own = (
            self.engine
            if self.owned or self.name == "sqlite"
            else self.engine.execution_options(isolation_level="READ COMMITTED")
        )

    def __repr__(self) -> str:
        return f"<Database {shown(self.engine.url)}>"

    @property
    def embedded(self) -> bool:
        """True if it is only this process's: SQLite in memory."""
        return in_memory(self.engine.url)

    # -- work

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work in a transaction of its own, again if it met another's or lost its way.

        Args:
            work: Gets the connection. It is called again after a deadlock, and once more if the
                connection is found to be broken.

        Raises:
            StoreError: The database can't do it.
        """
        for left in reversed(range(TRIES)):
            try:
                self._create_once()
                with self._own.connect() as connection, connection.begin():
                    self._begin(connection)
                    return work(connection)
            except SQLAlchemyError as error:
                if left and _passing(error):
                    time.sleep(random.uniform(0.001, 0.02) * (TRIES - left))  # noqa: S311
                    continue
                raise self.translated(error) from error
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do some reading; as `run`, but without a lock on a SQLite file.

        Raises:
            StoreError: The database can't do it.
        """
        for left in (True, False):
            try:
                self._create_once()
                with self._own.connect() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                if left and _disconnected(error):
                    continue
                raise self.translated(error) from error
        raise AssertionError("unreachable")

    def _begin(self, connection: Connection) -> None:
        # SQLite refuses to make a reader a writer once somebody else has written, at once and
        # without waiting: so it is a writer from the beginning.
        if self.name == "sqlite" and not _in_transaction(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _create_once(self) -> None:
        """Create the tables of an own SQLite database that has none."""
        if self._created or not self.owned or self.name != "sqlite":
            return
        with self.engine.connect() as connection:
            there = inspect(connection).has_table(self.tables.messages.name)
        if not there:
            self.create()
        self._created = True

    def create(self) -> None:
        """Create the tables, or bring them up to this version's schema.

        Raises:
            StoreError: The database can't do it.
        """
        from thorn_sqlalchemy.migrations import upgrade

        try:
            with self.engine.connect() as connection, connection.begin():
                self._begin(connection)
                upgrade(connection, self.tables)
        except SQLAlchemyError as error:
            raise self.translated(error) from error
        self._created = True

    # -- what goes wrong

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise what goes wrong inside as StoreError.

        Raises:
            StoreError: Something did.
        """
        try:
            yield
        except SQLAlchemyError as error:
            raise self.translated(error) from error

    def translated(self, error: SQLAlchemyError) -> StoreError:
        """An error in words that say what to do."""
        where = shown(self.engine.url)
        if isinstance(error, PoolTimeout):
            return StoreError(f"every connection to {where} is in use: {error}")
        said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        said = " ".join(said.split())
        lowered = said.lower()
        if any(words in lowered for words in ("readonly database", "read-only")):
            return StoreError(f"the database {where} is read-only: {said}")
        if any(words in lowered for words in ("database or disk is full", "no space left")):
            return StoreError(f"the database {where} is full: {said}")
        if any(words in lowered for words in _MISSING):
            with contextlib.suppress(SQLAlchemyError):
                wrong = self._wrong()
                if wrong is not None:
                    return StoreError(wrong)
        return StoreError(f"the database {where} can't do it: {said}")

    def check(self) -> None:
        """See that the tables are there and are those of this version.

        Raises:
            StoreError: They aren't, or the database can't be asked.
        """
        self._create_once()
        with self.translating():
            wrong = self._wrong()
        if wrong is not None:
            raise StoreError(wrong)

    def _wrong(self) -> str | None:
        """What is wrong with the tables; None if nothing is."""
        where, tables = shown(self.engine.url), self.tables
        way_out = f"run: thorn init-db --store {where}"
        if tables.prefix != "thorn_" or tables.schema is not None:
            way_out += f" (prefix {tables.prefix!r}, schema {tables.schema!r})"
        with self.engine.connect() as connection:
            asked = inspect(connection)
            there = set(asked.get_table_names(schema=tables.schema))
            missing = [table.name for table in tables.all() if table.name not in there]
            if missing:
                return (
                    f"the database {where} isn't initialised: there is no table"
                    f" {', '.join(missing)}; {way_out}"
                )
            if tables.version.name in there:
                revision = connection.execute(select(tables.version.c.version_num)).scalar()
                if revision is not None and revision < REVISION:
                    return (
                        f"the tables in {where} are of an older schema, {revision};"
                        f" this version works with {REVISION}; {way_out}"
                    )
            for table in tables.all():
                columns = {c["name"] for c in asked.get_columns(table.name, tables.schema)}
                lacking = [column.name for column in table.columns if column.name not in columns]
                if lacking:
                    return (
                        f"the table {table.name} in {where} has no column {', '.join(lacking)}: it"
                        f" is of an older schema; {way_out}, or your own migrations"
                    )
        return None

    # -- life

    def same_as(self, engine: Engine) -> bool:
        """True if an engine goes to this database, so that its transactions can hold our rows."""
        if engine is self.engine or engine.pool is self.engine.pool:
            return True
        mine, other = self.engine.url, engine.url
        if self.embedded or in_memory(other):
            return False
        return _place(mine) == _place(other)

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections of an engine made here."""
        if self.owned:
            self.engine.dispose()


def metadata_for(prefix: str, schema: str | None) -> Tables:
    """Tables in a metadata of their own."""
    from thorn_sqlalchemy.schema import define_tables

    return define_tables(MetaData(), prefix=prefix, schema=schema)


_MISSING = ("no such table", "no such column", "has no column", "doesn't exist", "does not exist",
            "unknown column")  # fmt: skip


def _place(url: URL) -> tuple[Any, ...]:
    backend = url.get_backend_name().replace("mariadb", "mysql")
    ports = {"postgresql": 5432, "mysql": 3306}
    host = "localhost" if url.host in (None, "127.0.0.1", "::1") else url.host
    return (backend, host, url.port or ports.get(backend), url.database)


def _in_transaction(connection: Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def _passing(error: SQLAlchemyError) -> bool:
    """True if the same may well succeed a moment later."""
    if _disconnected(error):
        return True
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if code is None and original is not None and original.args:
        code = original.args[0]
    # Two that insert the same row at once: the second finds it the next time.
    return code in CONFLICTS or isinstance(error, IntegrityError) or "locked" in str(original)


def _disconnected(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated
