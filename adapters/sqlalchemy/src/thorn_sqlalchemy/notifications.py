"""How workers in other processes are woken: by PostgreSQL's NOTIFY."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select

from thorn_core.stores import Notifications
from thorn_sqlalchemy.database import LIBPQ, Database


def notifications_of(database: Database) -> Notifications:
    """The notifications of a database."""
    if database.name != "postgresql":
        return Notifications()
    channel = f"{database.tables.prefix}work"
    notify = select(func.pg_notify(channel, ""))

    @contextmanager
    def listening() -> Iterator[Any]:
        with database.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            driver = connection.connection.driver_connection
            # Not the pool's any more: it goes on listening until it is closed.
            connection.detach()
            connection.exec_driver_sql(f'LISTEN "{channel}"')
            yield driver

    return Notifications(
        lambda: database.run(lambda connection: connection.execute(notify)),
        listening if database.engine.driver in LIBPQ else None,
    )
