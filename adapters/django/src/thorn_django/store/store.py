"""The store in Django's databases: durable, shared by many processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from weakref import WeakSet

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core import (
    Attempt,
    Claim,
    ConfigurationError,
    Delivery,
    DeliveryQuery,
    Message,
    Period,
    Routing,
    Settlement,
    Stats,
    Subscription,
    UnitOfWork,
)
from thorn_core.stores import Periods, Written
from thorn_django.store import history, leases, messages, subscriptions
from thorn_django.store.database import Database
from thorn_django.store.messages import insert_messages
from thorn_django.store.notifications import notifications_of
from thorn_django.store.outboxes import Outbox
from thorn_django.store.statements import VENDORS
from thorn_django.unit_of_work import DjangoUnitOfWork

logger = logging.getLogger(__name__)


class DjangoStore:
    """Keeps everything in one of Django's databases.

    What is sent or changed while a transaction is open on it in the calling thread belongs to that
    transaction.

    Args:
        alias: Of the database.
        databases: Aliases of others that have Thorn's tables too: what is sent in their
            transactions is kept there, and moved to this one by workers.

    Raises:
        ConfigurationError: There is no such alias, or the database is none that Thorn speaks to.

    Example:
        >>> DjangoStore("defautl")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: ...unknown database 'defautl'; known databases: ...
    """

    blocking = True
    shared = True

    def __init__(self, alias: str = "default", *, databases: Collection[str] = ()) -> None:
        others = [name for name in dict.fromkeys(databases) if name != alias]
        for name in (alias, *others):
            _check(name)
        self.database = Database(alias)
        self._messages = messages.Messages()
        self._outboxes = [Outbox(Database(name), self.database) for name in others]
        self._aliases = (alias, *others)
        self._by_alias = {database.alias: database for database in self._databases()}
        self._notifications = notifications_of(self.database)
        self._strangers: set[str] = set()
        self._opened = _Opened()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<DjangoStore {self.database.alias}>"

    def check(self) -> None:
        """See that the tables are there and have the columns that they need.

        Raises:
            StoreSetupError: They aren't; `manage.py migrate` makes them.
            StoreError: The database can't be asked.
        """
        self.database.check()
        for outbox in self._outboxes:
            outbox.check()

    def unit_of_work(self) -> DjangoUnitOfWork:
        """The unit of work of sends without `within=`: the transaction open on a database of it.

        If there are several, that of the store's own database is meant.
        """
        return DjangoUnitOfWork(*self._aliases)

    @contextmanager
    def transaction(self) -> Iterator[str]:
        """A transaction in this database, a savepoint if one is open; gives its alias.

        Raises:
            StoreError: The database can't begin it.
        """
        with self.database.atomic():
            yield self.database.alias

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Keep a new subscription."""
        self.database.run(lambda c: subscriptions.add(c, subscription))

    def save_subscription(self, subscription: Subscription) -> None:
        """Replace the subscription of that id."""
        self.database.run(lambda c: subscriptions.save(c, subscription))

    def remove_subscription(self, subscription_id: str) -> bool:
        """Remove it."""
        return self.database.run(lambda c: subscriptions.remove(c, subscription_id))

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of that id."""
        return self.database.read(lambda c: subscriptions.get(c, subscription_id))

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """A page of all subscriptions, or of one owner's."""
        return self.database.read(lambda c: subscriptions.page(c, owner, after, limit))

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """A page of the enabled subscriptions that an event reaches."""
        self._opened.begin()
        return self.database.read(lambda c: subscriptions.matching(c, event, sender, after, limit))

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """The first page of `matching` for each of the first of some messages."""
        self._opened.begin()
        return self.database.read(lambda c: subscriptions.matching_each(c, messages, limit))

    # -- the way of a message

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed: one INSERT, in the caller's transaction if it can hold them.

        The transaction of a database without Thorn's tables can't: they are kept once it has
        committed, which isn't atomic, and a warning says so. On SQLite, where one connection writes
        at a time, what is to be kept at once is kept in the transaction that is open here.

        Raises:
            StoreError: The database can't do it.
        """
        if isinstance(within, DjangoUnitOfWork):
            connection = within.connection()
            if connection is not None:
                database = self._holding(connection.alias)
                if database is not None:
                    insert = partial(insert_messages, messages=messages)
                    present = database.insert_within(connection, insert)
                    # Another database's outbox doesn't know what the store has.
                    if written is not None and self.database.same_as(connection.alias):
                        written(present)
                    within.on_commit(self._notifications.tell)
                    return
                self._warn_of(connection.alias)
        within.on_commit(partial(self._publish, messages, written))

    def locked_by(self, unit: UnitOfWork) -> bool:
        """True if a transaction is open in the same SQLite database, which has one writer."""
        if self.database.vendor != "sqlite" or not isinstance(unit, DjangoUnitOfWork):
            return False
        connection = unit.connection()
        return connection is not None and self.database.same_as(connection.alias)

    def _holding(self, alias: str) -> Database | None:
        """The database of an alias, if it has Thorn's tables."""
        if alias not in self._by_alias and self.database.same_as(alias):
            self._by_alias[alias] = Database(alias)
        return self._by_alias.get(alias)

    def _publish(self, messages: Sequence[Message], written: Written | None) -> None:
        if messages:
            present = self.database.run(lambda c: insert_messages(c, messages), apart=True)
            if written is not None:
                written(present)
            self._notifications.tell()

    def _warn_of(self, alias: str) -> None:
        if alias not in self._strangers:
            self._strangers.add(alias)
            logger.warning(
                "messages of transactions in the database %r are stored in %r after the commit: a"
                " crash in between loses them; add Thorn's tables to it (manage.py migrate"
                " --database %s), and name it in THORN_DATABASES",
                alias,
                self,
                alias,
            )

    def claim_messages(
        self, *, now: datetime, lease: timedelta, limit: int, ids: Collection[str] | None = None
    ) -> Sequence[Message]:
        """Lease messages that aren't routed yet."""
        for outbox in self._outboxes:
            outbox.empty(limit, ids)
        return self.database.run(
            lambda c: self._messages.claim(c, now, lease, limit, ids), lasting=False
        )

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Leave messages that are leased for routing until then."""
        self.database.run(lambda c: self._messages.postpone(c, message_ids, until), lasting=False)

    def route(self, routings: Sequence[Routing]) -> None:
        """Keep deliveries of messages."""
        self._opened.close()
        self.database.run(lambda c: self._messages.route(c, routings), lasting=False)

    def claim(
        self,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str,
        per_recipient: int,
        busy: Mapping[str, int],
        message_ids: Collection[str] | None = None,
    ) -> Sequence[Claim]:
        """Lease deliveries that are due, recipients taking turns."""
        return self.database.run(
            lambda c: leases.claim(
                c,
                self._messages,
                now=now,
                lease=lease,
                limit=limit,
                token=token,
                per_recipient=per_recipient,
                busy=busy,
                message_ids=message_ids,
            ),
            lasting=False,
        )

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Make the leases last until then."""
        self.database.run(lambda c: leases.renew(c, claims, until), lasting=False)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give leases back unused."""
        self.database.run(lambda c: leases.release(c, claims), lasting=False)
        self._notifications.tell()

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Subscription]:
        """Write how claims ended."""
        return self.database.run(lambda c: leases.settle(c, settlements), lasting=False)

    def next_due(self, now: datetime) -> datetime | None:
        """When what can't be claimed now may be claimable."""
        return self.database.read(lambda c: leases.next_due(c, now))

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever there may be something new to claim."""
        return self._notifications.listen(wake)

    # -- history

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        # Databases in the order that it travels in, not to miss it on its way.
        for outbox in self._outboxes:
            waiting = outbox.read(lambda c: self._messages.get(c, message_id))
            if waiting is not None:
                return waiting
        return self.database.read(lambda c: self._messages.get(c, message_id))

    def routed(self, message_id: str) -> bool:
        """True if the message has been routed completely, or is no longer here."""
        for outbox in self._outboxes:
            if outbox.read(lambda c: self._messages.state(c, message_id)) is not None:
                return False
        return self.database.read(lambda c: self._messages.state(c, message_id)) is not False

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        return self.database.read(lambda c: history.delivery(c, delivery_id))

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """A page of deliveries, by age; the other way round, the newest first."""
        return self.database.read(
            lambda c: history.deliveries(c, query, after, limit, newest_first=newest_first)
        )

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """A page of the attempts of these deliveries."""
        return self.database.read(lambda c: history.attempts(c, delivery_ids, after, limit))

    def count(self, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        return self.database.read(lambda c: history.count(c, query))

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make settled deliveries pending again."""
        replayed = self.database.run(lambda c: history.replay(c, query, now, limit))
        if replayed:
            DjangoUnitOfWork(self.database.alias).on_commit(self._notifications.tell)
        return replayed

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Remove settled deliveries with their attempts, and messages left without any."""
        gone = self.database.run(lambda c: history.purge(c, query, limit))
        if gone < limit and query == DeliveryQuery(until=query.until):
            # Each batch in a transaction of its own: nobody waits for long.
            work = partial(history.purge_unreached, until=query.until, limit=limit)
            while self.database.run(work) == limit:
                pass
        return gone

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        waiting = [outbox.read(history.unrouted) for outbox in self._outboxes]
        return self.database.read(lambda c: history.stats(c, now, window, waiting))

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period."""
        return self.database.read(lambda c: history.periods(c, asked))

    # -- life

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to SQLite."""
        for database in self._databases():
            database.before_fork()

    def after_fork(self) -> None:
        """In a forked child: leave connections and threads to the parent."""
        for database in self._databases():
            database.after_fork()
        self._notifications = notifications_of(self.database)

    def close(self) -> None:
        """Let go of the connections that aren't Django's own."""
        self._notifications.close()
        for database in self._databases():
            database.close()

    def _databases(self) -> list[Database]:
        return [self.database, *(outbox.database for outbox in self._outboxes)]


_stores: WeakSet[DjangoStore] = WeakSet()


def close_stores(alias: str) -> None:
    """Close the connections of all stores in a database, for those who are about to drop it."""
    for store in list(_stores):
        if alias in store._aliases:
            store.close()


def _check(alias: str) -> None:
    if alias not in connections:
        raise ConfigurationError(
            f"unknown database {alias!r}; known databases: {', '.join(sorted(connections))}"
        )
    vendor = connections[alias].vendor
    if vendor not in VENDORS:
        raise ConfigurationError(
            f"the database {alias!r} uses {vendor}, which Thorn's Django store doesn't support;"
            f" use PostgreSQL, MySQL, MariaDB or SQLite (THORN_STORE = 'django://alias')"
        )


class _Opened:
    """The connections of a thread that functions of the project's have opened.

    They name subscribers, or veto them, between matching and routing, in a worker's thread. As
    after a request, nothing of theirs stays open.
    """

    def __init__(self) -> None:
        self._here = threading.local()

    def begin(self) -> None:
        """What is open now isn't theirs."""
        self._here.before = {id(c) for c in _open_connections()}

    def close(self) -> None:
        """Close what has been opened since."""
        before = self._here.__dict__.pop("before", None)
        if before is not None:
            for connection in _open_connections():
                if id(connection) not in before and not connection.in_atomic_block:
                    with suppress(Error):  # it is lost
                        connection.close()


def _open_connections() -> list[BaseDatabaseWrapper]:
    return [c for c in connections.all(initialized_only=True) if c.connection is not None]
