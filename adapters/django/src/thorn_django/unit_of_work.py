"""Units of work: this thread's open transaction on one of Django's databases."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionProxy

from thorn_django.after_commit import Callback, after_commit, announces_commit

logger = logging.getLogger(__name__)
T = TypeVar("T")

_warned: set[str] = set()


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Return True if a connection doesn't commit changes at once."""
    if connection.in_atomic_block:
        return True
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.autocommit


def unit_of_work(handle: Any) -> DjangoUnitOfWork | None:
    """Return the unit of work of a transaction handle; None if it isn't Django's.

    Args:
        handle: A database alias, or its connection.
    """
    if isinstance(handle, BaseDatabaseWrapper | ConnectionProxy):
        handle = handle.alias
    if isinstance(handle, str) and settings.configured and handle in connections:
        return DjangoUnitOfWork(handle)
    return None


class DjangoUnitOfWork:
    """The calling thread's open transaction, if any.

    Args:
        aliases: Aliases of databases; the unit uses the first with an open transaction, else the
            first.
    """

    def __init__(self, *aliases: str) -> None:
        self.handle = aliases[0]
        self._aliases = aliases

    def __repr__(self) -> str:
        return f"<DjangoUnitOfWork {', '.join(self._aliases)}>"

    def __eq__(self, other: object) -> bool:
        # Messages in the same transaction are published together.
        return isinstance(other, DjangoUnitOfWork) and self._aliases == other._aliases

    def __hash__(self) -> int:
        return hash(self._aliases)

    @property
    def place(self) -> str:
        """The location of the transaction's database."""
        connection = self.connection()
        return f"django://{self.handle if connection is None else connection.alias}"

    @property
    def open(self) -> bool:
        """True if a transaction is open."""
        return self.connection() is not None

    def connection(self) -> BaseDatabaseWrapper | None:
        """Return the connection of the transaction, or None if none is open."""
        for alias in self._aliases:
            connection = connections[alias]
            if in_transaction(connection):
                return connection
        return None

    def on_commit(self, callback: Callback) -> None:
        """Call a function right after the commit of the outermost transaction."""
        connection = self.connection()
        if connection is None:
            callback()
        else:
            _on_commit(connection, callback)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread where this task uses Django's database."""
        return await sync_to_async(function, thread_sensitive=True)()


def _on_commit(connection: BaseDatabaseWrapper, callback: Callback) -> None:
    if announces_commit(connection):
        after_commit(connection, callback)
    elif connection.alias not in _warned:
        _warned.add(connection.alias)
        logger.warning(
            "autocommit of the database %r is off, so Django doesn't report commits: workers find"
            " the messages at their next poll",
            connection.alias,
        )
