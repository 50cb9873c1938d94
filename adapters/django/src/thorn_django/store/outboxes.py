"""Outboxes: messages in other databases than the store's, on their way to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import StoreSetupError
from thorn_django import models
from thorn_django.store import messages
from thorn_django.store.database import Database, wrong_with
from thorn_django.store.statements import columns_of, first_keys, insert_new

T = TypeVar("T")


class Outbox:
    """The table of messages in a database that isn't the store's.

    A transaction there can hold messages; workers move them to the store, which keeps them before
    the outbox forgets them: what a crash in between repeats is there already.

    Args:
        database: Where it is.
        store: Where messages go.
    """

    def __init__(self, database: Database, store: Database) -> None:
        self.database = database
        self._store = store

    def check(self) -> None:
        """See that the table is there.

        Raises:
            StoreSetupError: It isn't.
        """
        wrong = self.database.read(lambda c: wrong_with(c, [models.Message]))
        if wrong is not None:
            raise StoreSetupError(wrong)

    def read(self, work: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Do some reading in its database."""
        return self.database.read(work)

    def empty(self, limit: int, ids: Collection[str] | None) -> None:
        """Move messages to the store, the oldest first.

        Args:
            limit: How many at most.
            ids: Only these.
        """

        def there(connection: BaseDatabaseWrapper) -> Any:
            found = messages.rows(connection)
            return found if ids is None else found.filter(pk__in=list(ids)[:limit])

        def move(connection: BaseDatabaseWrapper) -> None:
            keys = first_keys(connection, there(connection).order_by("at", "id"), limit)
            locked = messages.rows(connection).filter(pk__in=keys)
            rows = [_as_columns(row) for row in locked.values(*columns_of(models.Message))]
            self._store.run(lambda c: insert_new(c, models.Message, rows))
            locked._raw_delete(connection.alias)

        if self.database.read(lambda c: there(c).exists()):
            self.database.run(move)


def _as_columns(row: dict[str, Any]) -> dict[str, Any]:
    fields = models.Message._meta.local_concrete_fields
    prepared = {field.attname: field.get_prep_value(row[field.attname]) for field in fields}
    return {**prepared, "data": bytes(row["data"])}
