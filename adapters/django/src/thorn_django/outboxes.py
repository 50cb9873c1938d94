"""Outboxes: messages in databases other than the store's, until workers move them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from thorn_core import Message, StoreSetupError
from thorn_core.keys import message_key
from thorn_core.ports.tables import Table
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.messages import GET, Messages
from thorn_core.stores.sql.rows import message_of
from thorn_core.stores.sql.schema import IDEMPOTENCY, MESSAGES, OUTBOX, TABLES
from thorn_core.stores.sql.setup import wrong_with
from thorn_core.stores.sql.statements import Statements
from thorn_django.executor import DjangoExecutor
from thorn_django.tables import wording_of

Publish = Callable[..., Any]

# The tables that such a database needs.
NEEDED = (MESSAGES, IDEMPOTENCY, OUTBOX)
ANY = "SELECT 1 FROM $outbox LIMIT 1"
FIRST = "SELECT message_id FROM $outbox ORDER BY message_id"
NAMED = "SELECT message_id FROM $outbox WHERE message_id IN (:keys.key*)"
COUNT = "SELECT count(*) FROM $outbox"
FORGET = (
    "DELETE FROM $outbox WHERE message_id IN (:keys.key*)",
    "DELETE FROM $idempotency WHERE message_id IN (:keys.key*)",
    "DELETE FROM $messages WHERE id IN (:keys.key*)",
)


def database_of(alias: str, subscriptions: str | None = None) -> Database:
    """Return one of Django's databases as the SQL store's `Database`.

    Args:
        alias: The alias of the database.
        subscriptions: The project's own table of subscriptions, if any.
    """
    executor = DjangoExecutor(alias)
    return Database(executor, wording_of(executor.dialect, subscriptions))


def what_is_wrong(database: Database, tables: Collection[Table] = TABLES) -> str | None:
    """Return the problem with a database's tables and its solution; None if there is no problem.

    Raises:
        StoreError: The database doesn't respond.
    """
    place, way_out = database.executor.place, database.executor.way_out
    return database.read(lambda s: wrong_with(s, place, way_out, tuple(tables)))


class OtherOutbox:
    """The messages in a database other than the store's.

    A transaction there can hold messages, and workers move them to the store. The store writes them
    before the outbox deletes them. If a crash makes a worker repeat the move, the store skips the
    duplicates.

    Args:
        alias: The alias of the database.
        store: The database of the store.
        publish: Inserts messages into the store.
    """

    def __init__(self, alias: str, store: Database, publish: Publish) -> None:
        self.alias, self.database = alias, database_of(alias)
        self._store, self._publish = store, publish

    def check(self) -> None:
        """Check that the tables exist.

        Raises:
            StoreSetupError: A table is missing.
            StoreError: The database doesn't respond.
        """
        wrong = what_is_wrong(self.database, NEEDED)
        if wrong is not None:
            raise StoreSetupError(wrong)

    def empty(self, limit: int, ids: Collection[str] | None) -> None:
        """Move messages to the store, the oldest first.

        Args:
            limit: The maximum number.
            ids: Restricts the move to these messages.
        """
        if self.database.read(lambda s: s.first(ANY)) is not None:
            self.database.run(partial(self._move, limit=limit, ids=ids))

    def _move(self, statements: Statements, limit: int, ids: Collection[str] | None) -> None:
        wording = statements.wording
        if ids is None:
            text = f"{FIRST}{wording.limit}{wording.skip_locked}"
            found = statements.rows(text, most=limit)
        else:
            asked = sorted(key for id_ in ids if (key := message_key(id_)) is not None)[:limit]
            text = f"{NAMED}{wording.skip_locked}"
            found = statements.rows(text, keys=asked) if asked else []
        keys = sorted(key for (key,) in found)
        if not keys:
            return
        messages = [message_of(row) for row in statements.rows(GET, keys=keys)]
        self._store.run(partial(self._publish, messages=messages))
        for text in FORGET:
            statements.change(text, keys=keys)

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id if the outbox has it, else None."""
        return self.database.read(lambda s: Messages().get(s, message_id))

    def holds(self, message_id: str) -> bool:
        """Return True if the outbox has the message."""
        key = message_key(message_id)
        return key is not None and bool(self.database.read(lambda s: s.rows(NAMED, keys=[key])))

    def count(self) -> int:
        """Return the number of messages in the outbox."""
        ((count,),) = self.database.read(lambda s: s.rows(COUNT))
        return int(count)
