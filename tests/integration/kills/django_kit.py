"""The kit of `thorn-django`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import magazine_project
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.transaction import TransactionManagementError

from kills.kit import Harm
from thorn_core import Settings, StoreError, Thorn


class DjangoKit:
    """Programs that use a database of Django's.

    Args:
        alias: Of the database, which has Thorn's tables.
    """

    most = 80
    lease = 6.0
    rate = 1000
    errors = (DatabaseError, InterfaceError, StoreError, TransactionManagementError)
    modules = (__name__, "psycopg", "pymysql")

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __getstate__(self) -> dict[str, Any]:
        return {"alias": self.alias, "name": connections[self.alias].settings_dict["NAME"]}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.alias = state["alias"]
        magazine_project.DATABASES[self.alias]["NAME"] = state["name"]
        magazine_project.configure()

    def prepare(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS truth")
            cursor.execute(
                "CREATE TABLE truth (own_key VARCHAR(64) PRIMARY KEY, message_id VARCHAR(64),"
                " event VARCHAR(64))"
            )

    def app(self, settings: Settings, *, number: int = 0, dispatcher: str = "outbox") -> Thorn:
        from thorn_django.store import DjangoStore

        return Thorn(store=DjangoStore(self.alias), dispatcher=dispatcher, settings=settings)

    def work(self, app: Thorn) -> None:
        app.worker().run()

    @contextmanager
    def transaction(self) -> Iterator[str]:
        try:
            with transaction.atomic(using=self.alias):
                yield self.alias
        except self.errors:
            # As Django does before each request.
            connections[self.alias].close_if_unusable_or_obsolete()
            raise

    def savepoint(self, handle: str) -> Any:
        return transaction.atomic(using=handle)

    def note(self, handle: str, key: str, message_id: str, event: str) -> None:
        with connections[handle].cursor() as cursor:
            cursor.execute("INSERT INTO truth VALUES (%s, %s, %s)", [key, message_id, event])

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def count(self) -> int:
        return self._rows("SELECT count(*) FROM truth")[0][0]

    def truth(self) -> Mapping[str, tuple[str, str]]:
        rows = self._rows("SELECT message_id, own_key, event FROM truth")
        return {message_id: (key, event) for message_id, key, event in rows}

    def harms(self) -> Mapping[str, Harm]:
        return {"connection broken": self._break_connections}

    def _break_connections(self, rng: random.Random) -> int:
        if self.alias == "postgresql":
            others = (
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            end = "SELECT pg_terminate_backend(%s)"
        else:
            others = (
                "SELECT id FROM information_schema.processlist"
                " WHERE db = database() AND id <> connection_id()"
            )
            end = "KILL CONNECTION %s"
        broken = 0
        ids = sorted(number for (number,) in self._rows(others))
        with connections[self.alias].cursor() as cursor:
            for number in rng.sample(ids, min(len(ids), rng.randint(1, 3))):
                with suppress(DatabaseError):  # it has ended meanwhile
                    cursor.execute(end, [number])
                    broken += 1
        return broken

    def close(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS truth")
        connections[self.alias].close()
