"""How workers in other processes are woken: by PostgreSQL's NOTIFY."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from thorn_core.stores import Notifications
from thorn_django.store.database import Database

# That of thorn-sqlalchemy, whose workers may work on the same tables.
CHANNEL = "thorn_work"


def notifications_of(database: Database) -> Notifications:
    """The notifications of a database."""
    if database.vendor != "postgresql":
        return Notifications()

    @contextmanager
    def listening() -> Iterator[Any]:
        with closing(database.connection()) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f'LISTEN "{CHANNEL}"')
            yield connection.connection

    return Notifications(lambda: database.read(_notify), listening)


def _notify(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
