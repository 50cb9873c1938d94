"""The store in Django's databases: the core's SQL store on Django's connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from weakref import WeakSet

import attrs
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import Message, Routing, Stats, Subscription, UnitOfWork
from thorn_core.ports.store import Lease, Written
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.rows import micros
from thorn_core.stores.sql.schema import SUBSCRIPTIONS
from thorn_core.stores.sql.store import SqlStore
from thorn_core.stores.sql.subscriptions import Subscriptions
from thorn_django.executor import DjangoExecutor
from thorn_django.outboxes import OtherOutbox
from thorn_django.subscription_model import (
    delete_row,
    insert_rows,
    subscription_model,
    table_of,
)
from thorn_django.unit_of_work import DjangoUnitOfWork

logger = logging.getLogger(__name__)


class DjangoStore(SqlStore):
    """Keeps all data in one of Django's databases.

    If the calling thread has an open transaction on that database, messages and changes belong to
    it.

    Args:
        alias: The alias of the database.
        databases: Aliases of other databases with Thorn's tables. Messages of their transactions
            are stored there, and workers move them to the store's database.

    Raises:
        ConfigurationError: The alias is unknown, or Thorn doesn't support the database.

    Example:
        >>> DjangoStore("defautl")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: ...unknown database 'defautl'; known databases: ...
    """

    def __init__(self, alias: str = "default", *, databases: Collection[str] = ()) -> None:
        self.executor = DjangoExecutor(alias)
        table = table_of(subscription_model())
        super().__init__(
            self.executor,
            # The place of Django's connection: a test run has another database with the same alias.
            schema="",
            names={} if table is None else {SUBSCRIPTIONS.name: table},
            subscriptions=partial(Subscriptions, insert=insert_rows, delete=delete_row),
        )
        others = [name for name in dict.fromkeys(databases) if name != alias]
        self._others = [OtherOutbox(name, self.database, self._insert) for name in others]
        self._unit = DjangoUnitOfWork(alias, *others)
        self._opened = _Opened()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<DjangoStore {self.executor.alias}>"

    @property
    def alias(self) -> str:
        """The alias of the store's database."""
        return self.executor.alias

    def create(self) -> None:
        """Check the tables: Django's migrations create them.

        Raises:
            StoreSetupError: The tables are missing; `manage.py migrate` creates them.
            StoreError: The database doesn't respond.
        """
        self.check()

    def check(self) -> None:
        """Check that the tables exist and have the required columns.

        Raises:
            StoreSetupError: Tables or columns are missing; `manage.py migrate` creates them.
            StoreError: The database doesn't respond.
        """
        super().check()
        for other in self._others:
            other.check()

    def unit_of_work(self) -> DjangoUnitOfWork:
        """Return the unit of work of sends without `within=`: the open transaction of a database.

        If there are several, use that of the store's own database.
        """
        return self._unit

    def _tell(self) -> None:
        # Before the commit, workers can't claim the transaction's messages.
        DjangoUnitOfWork(self.alias).on_commit(self._notifications.tell)

    def forget_subscription(self, subscription_id: str, *, now: datetime) -> None:
        """Clean up after other code has deleted a subscription's row."""
        at = micros(now)
        self.database.run(lambda s: self._subscriptions.forget(s, subscription_id, at))
        self._tell()

    # -- messages and deliveries

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Store messages for routing: in the caller's transaction, if it can hold them.

        If the transaction's database lacks Thorn's tables, the store writes the messages after its
        commit. That isn't atomic, so the store logs a warning. SQLite has a single writer: messages
        to store at once are written in this thread's open transaction.

        Raises:
            StoreError: The database reports an error.
        """
        other = self._other_of(within)
        if other is None:
            super().publish(messages, within=within, written=written)
            return
        connection = other.executor.borrow(within)
        assert connection is not None
        # The outbox doesn't know the keyed messages in the store, so don't call `written`.
        other.within(connection, partial(self._insert, messages=messages))
        within.on_commit(self._notifications.tell)

    def _other_of(self, within: UnitOfWork) -> Database | None:
        """Return the alias of the other database with the open transaction."""
        for other in self._others:
            executor = other.database.executor
            if self._borrow(within) is None and executor.borrow(within) is not None:
                return other.database
        return None

    def _publish(self, messages: Sequence[Message], written: Written | None) -> None:
        with self.executor.apart():
            super()._publish(messages, written)

    def _warn_of(self, within: UnitOfWork) -> None:
        where = getattr(within, "place", type(within).__name__)
        if where not in self._strangers:
            self._strangers.add(where)
            alias = where.removeprefix("django://")
            logger.warning(
                "messages of transactions in the database %r are stored in %r after the commit: a"
                " crash in between loses them; add Thorn's tables to it (manage.py migrate"
                " --database %s), and name it in THORN_DATABASES",
                alias,
                self,
                alias,
            )

    def claim_messages(
        self,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str | None = None,
        ids: Collection[str] | None = None,
    ) -> Sequence[Message]:
        """Lease messages that are not routed yet."""
        for other in self._others:
            other.empty(limit, ids)
        return super().claim_messages(now=now, lease=lease, limit=limit, token=token, ids=ids)

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """Return a page of the enabled subscriptions that match an event."""
        self._opened.begin()
        return super().matching(event, sender=sender, after=after, limit=limit)

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """Return the first page of `matching` for one or more of the first messages."""
        self._opened.begin()
        return super().matching_each(messages, limit=limit)

    def route(self, routings: Sequence[Routing], *, leased: Lease | None = None) -> None:
        """Store the deliveries of messages."""
        self._opened.close()
        super().route(routings, leased=leased)

    # -- history

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        # Search the databases in the direction of the move, so that a moving message isn't missed.
        for other in self._others:
            waiting = other.message(message_id)
            if waiting is not None:
                return waiting
        return super().message(message_id)

    def routed(self, message_id: str) -> bool:
        """Return True if the message is routed completely or no longer exists."""
        if any(other.holds(message_id) for other in self._others):
            return False
        return super().routed(message_id)

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """Return counts of the store's contents and statistics of recent attempts."""
        waiting = sum(other.count() for other in self._others)
        stats = super().stats(now=now, window=window)
        return attrs.evolve(
            stats, messages=stats.messages + waiting, unrouted=stats.unrouted + waiting
        )

    # -- life cycle

    def before_fork(self) -> None:
        """Close idle connections to SQLite; called before a fork."""
        super().before_fork()
        for other in self._others:
            other.database.executor.before_fork()

    def after_fork(self) -> None:
        """Leave connections and threads to the parent; called in a forked child."""
        super().after_fork()
        for other in self._others:
            other.database.after_fork()

    def close(self) -> None:
        """Close the store's own connections."""
        super().close()
        for other in self._others:
            other.database.executor.close()

    @property
    def aliases(self) -> frozenset[str]:
        """The aliases of all databases of the store."""
        return frozenset((self.alias, *(other.alias for other in self._others)))


_stores: WeakSet[DjangoStore] = WeakSet()


def close_stores(alias: str) -> None:
    """Close the connections of all stores in a database before the database is dropped."""
    for store in list(_stores):
        if alias in store.aliases:
            store.close()


class _Opened:
    """The connections that the project's functions open in a thread.

    These functions return or exclude subscribers between matching and routing, in a worker's
    thread. Their connections are closed afterwards, as after a request.
    """

    def __init__(self) -> None:
        self._here = threading.local()

    def begin(self) -> None:
        """Note the connections that are already open."""
        self._here.before = {id(c) for c in _open_connections()}

    def close(self) -> None:
        """Close the connections opened since `begin`."""
        before = self._here.__dict__.pop("before", None)
        if before is not None:
            for connection in _open_connections():
                if id(connection) not in before and not connection.in_atomic_block:
                    with suppress(Error):  # The connection is broken.
                        connection.close()


def _open_connections() -> list[BaseDatabaseWrapper]:
    return [c for c in connections.all(initialized_only=True) if c.connection is not None]
