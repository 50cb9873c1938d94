"""The store on an SQL database: durable, shared by many processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from thorn_core.periods import Periods
from thorn_core.ports.executor import Executor
from thorn_core.ports.store import Change, Lease, Written
from thorn_core.ports.unit_of_work import UnitOfWork
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.notifications import Notifications
from thorn_core.stores.sql import figures, purging, setup
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.history import History
from thorn_core.stores.sql.messages import Messages
from thorn_core.stores.sql.missing import missing
from thorn_core.stores.sql.outbox import Outbox
from thorn_core.stores.sql.queue import Queue
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.recording import Recording
from thorn_core.stores.sql.rows import micros, moment
from thorn_core.stores.sql.schema import PREFIX
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.subscriptions import Subscriptions
from thorn_core.stores.sql.wording import POSTGRESQL, SQLITE, Wording
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    Delivery,
    Message,
    Period,
    Routing,
    Stats,
    Subscription,
)

logger = logging.getLogger(__name__)

NOTIFY = "SELECT pg_notify(:channel.text, '')"


class SqlStore:
    """Keeps all data in a database.

    Args:
        executor: Lends connections to the database.
        prefix: The prefix of the tables' names.
        schema: The database schema of the tables. None is the schema of the store's own
            connections; an empty string is the current schema of each connection.
        names: Complete names of tables without the prefix.
        subscriptions: Creates the store's part for subscriptions.

    Example:
        >>> from thorn_core import Thorn
        >>> from thorn_core.stores.sql.sqlite import SqliteExecutor
        >>> with Thorn(store=SqlStore(SqliteExecutor("sqlite://")), dispatcher="outbox") as app:
        ...     subscription = app.subscribe("article.*", "https://example.com/hook")
        ...     app.subscription(subscription.id).events
        ('article.*',)
    """

    blocking = True

    def __init__(
        self,
        executor: Executor,
        *,
        prefix: str = PREFIX,
        schema: str | None = None,
        names: Mapping[str, str] | None = None,
        subscriptions: Callable[[Recipients], Subscriptions] = Subscriptions,
    ) -> None:
        wording = Wording(executor.dialect, executor.placeholder, prefix, schema, names=names)
        self.database = Database(executor, wording)
        self.shared = not executor.embedded
        self._executor = executor
        self._strangers: set[str] = set()
        self._make_subscriptions = subscriptions
        self._begin_life()

    def _begin_life(self) -> None:
        # The caches of the parts are valid for one database.
        self._recipients = Recipients()
        self._messages = Messages()
        self._subscriptions = self._make_subscriptions(self._recipients)
        self._queue = Queue(self._recipients, self._messages, self._subscriptions)
        self._recording = Recording(self._recipients, self._subscriptions)
        self._outbox = Outbox(self._messages, self._queue, self._recipients, self._subscriptions)
        self._history = History(self._queue)
        self._notifications = self._make_notifications()

    def __repr__(self) -> str:
        return f"<SqlStore {self._executor.place}>"

    def _make_notifications(self) -> Notifications:
        if self._executor.dialect != POSTGRESQL:
            return Notifications()
        channel = f"{self.database.wording.prefix}work"

        def notify() -> None:
            self.database.run(lambda s: s.rows(NOTIFY, channel=channel), durable=False)

        def listening() -> Any:
            return self._executor.listening(channel)

        return Notifications(notify, listening if listening() is not None else None)

    def _tell(self) -> None:
        """Announce that new work may be claimable."""
        self._notifications.tell()

    def create(self) -> str | None:
        """Create missing tables.

        Returns:
            The previous version of the schema, or None if there was none.

        Raises:
            StoreSetupError: Existing tables don't fit this version.
            StoreError: The database reports an error.
        """
        return self.database.create()

    @property
    def place(self) -> str:
        """The location of the tables, for messages."""
        return self._executor.place

    def version(self) -> str | None:
        """Return the version of the schema; None if Thorn didn't create it.

        Raises:
            StoreError: The database doesn't respond.
        """
        return self.database.read(setup.version_of)

    def script(self) -> str:
        """Return the SQL that creates the tables in a new database.

        Example:
            >>> from thorn_core.stores.sql.sqlite import SqliteExecutor
            >>> SqlStore(SqliteExecutor("sqlite://")).script().partition(" (")[0]
            'CREATE TABLE IF NOT EXISTS "thorn_subscriptions"'
        """
        return self.database.script()

    def check(self) -> None:
        """Check that the tables exist and have this version.

        Raises:
            StoreSetupError: The tables are missing or have another version.
            StoreError: The database doesn't respond.
        """
        self.database.check()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Open a transaction in this database, for programs without their own.

        It commits at the end of the block, and rolls back on an exception.

        Raises:
            StoreError: The database can't begin or commit the transaction.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(store="sqlite://", dispatcher="outbox") as app:
            ...     with app.store.transaction() as transaction:
            ...         receipt = app.send("order.paid", {"number": 7}, within=transaction)
            ...     app.message(receipt.message.id).event
            'order.paid'
        """
        with ExitStack() as stack:
            with self.database.translating():
                self.database.prepare()
                handle = stack.enter_context(self._executor.begin())
            yield handle
            with self.database.translating():
                stack.close()

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Store a new subscription."""
        self.database.run(lambda s: self._subscriptions.add(s, subscription))

    def change_subscription(self, subscription_id: str, change: Change) -> Subscription:
        """Change the subscription with this id under a lock."""
        return self.database.run(lambda s: self._subscriptions.change(s, subscription_id, change))

    def remove_subscription(self, subscription_id: str, *, now: datetime) -> bool:
        """Remove a subscription."""
        at = micros(now)
        removed = self.database.run(lambda s: self._subscriptions.remove(s, subscription_id, at))
        self._tell()
        return removed

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        return self.database.read(lambda s: self._subscriptions.get(s, subscription_id))

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """Return a page of all subscriptions, or of one owner's."""
        return self.database.read(lambda s: self._subscriptions.page(s, owner, after, limit))

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """Return a page of the enabled subscriptions that match an event."""
        return self.database.read(
            lambda s: self._subscriptions.matching(s, event, sender, after, limit)
        )

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """Return the first page of `matching` for one or more of the first messages."""
        return self.database.read(lambda s: self._subscriptions.matching_each(s, messages, limit))

    def pause(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Pause a subscription: hold its deliveries."""
        return self._set_paused(subscription_id, now, paused=True)

    def resume(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Resume a subscription: release its held deliveries."""
        resumed = self._set_paused(subscription_id, now, paused=False)
        self._tell()
        return resumed

    def _set_paused(self, subscription_id: str, now: datetime, *, paused: bool) -> Subscription:
        return self.database.run(
            lambda s: self._subscriptions.set_paused(s, subscription_id, now, paused=paused)
        )

    # -- messages and deliveries

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Store messages for routing: in the caller's transaction, if it is in this database.

        If the transaction is in another database, the store writes the messages after its commit.
        That isn't atomic, so the store logs a warning.

        Raises:
            StoreError: The database reports an error.
            ConfigurationError: The transaction has ended, or this thread can't use it.
        """
        connection = self._borrow(within)
        if connection is not None:
            present = self.database.within(connection, partial(self._insert, messages=messages))
            if written is not None:
                written(present)
            within.on_commit(self._notifications.tell)
            return
        if within.open:
            self._warn_of(within)
        within.on_commit(partial(self._publish, messages, written))

    def _borrow(self, within: UnitOfWork) -> Any:
        with self.database.translating():
            return self._executor.borrow(within)

    def _insert(self, statements: Statements, messages: Sequence[Message]) -> dict[str, str]:
        return self._outbox.publish(statements, messages)

    def _publish(self, messages: Sequence[Message], written: Written | None) -> None:
        if messages:
            present = self.database.run(partial(self._insert, messages=messages))
            self._tell()
            if written is not None:
                written(present)

    def _warn_of(self, within: UnitOfWork) -> None:
        where = getattr(within, "place", type(within).__name__)
        if where not in self._strangers:
            self._strangers.add(where)
            logger.warning(
                "the store writes messages of transactions in %s to %r, another database, after the"
                " commit: a crash in between loses them",
                where,
                self,
            )

    def locked_by(self, unit: UnitOfWork) -> bool:
        """Return True if the transaction is in the same SQLite database, which has a single writer.

        Raises:
            ConfigurationError: The transaction has ended, or this thread can't use it.
        """
        return self._executor.dialect == SQLITE and self._borrow(unit) is not None

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
        at, until = micros(now), micros(now + lease)
        return self.database.run(
            lambda s: self._outbox.claim(s, now=at, until=until, limit=limit, token=token, ids=ids),
            durable=False,
        )

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Postpone the routing of leased messages until the given time."""
        self.database.run(
            lambda s: self._outbox.postpone(s, message_ids, micros(until)), durable=False
        )

    def route(self, routings: Sequence[Routing], *, leased: Lease | None = None) -> None:
        """Store the deliveries of messages."""
        if routings:
            lease = None if leased is None else (leased[0], micros(leased[1]))
            route = partial(self._outbox.route, routings=routings, lease=lease)
            fast = partial(route, careful=False)
            self.database.run(fast, careful=route, durable=False)

    def ready(self, subscription_ids: Collection[str], *, now: datetime) -> Mapping[str, bool]:
        """Return the recipients that aren't paused, and whether they have due deliveries."""
        return self.database.read(lambda s: self._recipients.open(s, subscription_ids, micros(now)))

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
        """Lease due deliveries; subscriptions take turns."""
        return self.database.run(
            lambda s: self._queue.claim(
                s,
                now=micros(now),
                until=micros(now + lease),
                limit=limit,
                token=token,
                per_recipient=per_recipient,
                busy=busy,
                message_ids=message_ids,
            ),
            durable=False,
        )

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Extend the leases until the given time."""
        self.database.run(lambda s: self._queue.renew(s, claims, micros(until)), durable=False)

    def release(self, claims: Sequence[Claim]) -> None:
        """Release leases without an attempt."""
        self.database.run(lambda s: self._queue.release(s, claims), durable=False)
        self._tell()

    def record(
        self, completions: Sequence[Completion], *, routed: Collection[str] = ()
    ) -> Sequence[Subscription]:
        """Record the completions of claims."""
        return self.database.run(
            lambda s: self._recording.record(s, completions, routed),
            careful=lambda s: self._recording.record(s, completions, routed, careful=True),
            durable=False,
        )

    def cancel(
        self, query: DeliveryQuery, *, now: datetime, limit: int, reason: str
    ) -> Sequence[Delivery]:
        """Cancel pending deliveries."""
        return self.database.run(
            lambda s: self._history.cancel(s, query, micros(now), limit, reason)
        )

    def next_due(self, now: datetime) -> datetime | None:
        """Return the earliest time at which more work may become claimable."""
        at = micros(now)
        found = self.database.read(
            lambda s: (self._queue.next_due(s), self._outbox.next_due(s, at))
        )
        times = [time for time in found if time is not None]
        return moment(max(min(times), at)) if times else None

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever new work may be claimable."""
        return self._notifications.listen(wake)

    # -- history

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        return self.database.read(lambda s: self._messages.get(s, message_id))

    def routed(self, message_id: str) -> bool:
        """Return True if the message is routed completely or no longer exists."""
        return self.database.read(lambda s: self._outbox.routed(s, message_id))

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery with this id, or None."""
        return self.database.read(lambda s: self._history.delivery(s, delivery_id))

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """Return a page of deliveries, ordered by id."""
        return self.database.read(
            lambda s: self._history.deliveries(s, query, after, limit, newest_first=newest_first)
        )

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """Return a page of the attempts of these deliveries."""
        return self.database.read(lambda s: self._history.attempts(s, delivery_ids, after, limit))

    def count(self, query: DeliveryQuery) -> int:
        """Count deliveries."""
        return self.database.read(lambda s: self._history.count(s, query))

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make finished deliveries pending again."""
        replayed = self.database.run(lambda s: self._history.replay(s, query, micros(now), limit))
        if replayed:
            self._tell()
        return replayed

    def missing(
        self,
        subscription: Subscription,
        *,
        since: datetime,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Sequence[Message], str | None]:
        """Return matching routed messages without a delivery to the subscription."""
        return self.database.read(lambda s: missing(s, subscription, since, until, after, limit))

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Delete finished deliveries with their attempts, and messages without deliveries."""
        gone = self.database.run(lambda s: purging.purge(s, query, limit))
        if gone < limit and query == DeliveryQuery(until=query.until):
            # A transaction per batch, so that other transactions don't wait for long.
            after: bytes | None = b""
            while after is not None:
                work = partial(purging.purge_unreached, after=after, until=query.until, limit=limit)
                after = self.database.run(work)
        return gone

    def erase(self, sender: str, *, limit: int) -> int:
        """Delete a sender's messages with their deliveries and attempts."""
        return purging.erase_all(self.database, sender, limit)

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """Return counts of the store's contents and statistics of recent attempts."""
        return self.database.read(lambda s: figures.stats(s, now, window))

    def periods(self, asked: Periods) -> Sequence[Period]:
        """Return the results of deliveries to one subscription, per period."""
        return self.database.read(lambda s: figures.periods(s, asked))

    # -- life cycle

    def before_fork(self) -> None:
        """Close idle connections to a SQLite file; called before a fork."""
        self._executor.before_fork()

    def after_fork(self) -> None:
        """Leave connections and threads to the parent; called in a forked child.

        A child begins with an empty database if it is in memory.
        """
        self.database.after_fork()
        self._begin_life()

    def close(self) -> None:
        """Close the connections."""
        self._notifications.close()
        self._executor.close()
