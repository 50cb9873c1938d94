"""The store on SQLAlchemy: durable, shared by many processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import URL, Connection, Engine

from thorn_core import (
    Attempt,
    Claim,
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
from thorn_sqlalchemy.claims import Claims
from thorn_sqlalchemy.database import Database, metadata_for, shown
from thorn_sqlalchemy.greenlets import off_loop
from thorn_sqlalchemy.history import History
from thorn_sqlalchemy.messages import Messages
from thorn_sqlalchemy.notifications import notifications_of
from thorn_sqlalchemy.quiet import quietly
from thorn_sqlalchemy.recipients import Recipients
from thorn_sqlalchemy.schema import PREFIX, Tables
from thorn_sqlalchemy.subscriptions import Subscriptions
from thorn_sqlalchemy.unit_of_work import SqlUnitOfWork

logger = logging.getLogger(__name__)


class SqlStore:
    """Keeps everything in a database that SQLAlchemy speaks to.

    Args:
        source: The URL of the database, with a synchronous driver; or an Engine of yours.
        prefix: What the tables' names begin with.
        schema: The database schema that they are in; None is the default one.
        tables: Tables defined in a metadata of yours, by `define_tables`, in place of both.

    Raises:
        ConfigurationError: The URL isn't one, or its driver isn't installed or is asynchronous.

    Example:
        >>> from thorn_core import Thorn
        >>> with Thorn(store=SqlStore("sqlite://"), dispatcher="outbox") as app:
        ...     subscription = app.subscribe("article.*", "https://example.com/hook")
        ...     app.subscription(subscription.id).events
        ('article.*',)
    """

    blocking = True

    def __init__(
        self,
        source: str | URL | Engine,
        *,
        prefix: str = PREFIX,
        schema: str | None = None,
        tables: Tables | None = None,
    ) -> None:
        self.tables = tables or metadata_for(prefix, schema)
        self.database = Database(source, self.tables)
        self.shared = not self.database.embedded
        dialect = self.database.name
        self._recipients = Recipients(self.tables, dialect)
        self._subscriptions = Subscriptions(self.tables, dialect)
        self._messages = Messages(self.tables, dialect, self._recipients)
        self._claims = Claims(
            self.tables, dialect, self._recipients, self._messages, self._subscriptions
        )
        self._history = History(self.tables, dialect, self._recipients)
        self._notifications = notifications_of(self.database)
        self._strangers: set[str] = set()

    def __repr__(self) -> str:
        return f"<SqlStore {shown(self.database.engine.url)}>"

    def create(self) -> None:
        """Create the tables, or bring them up to this version's schema (`thorn init-db`).

        Raises:
            StoreError: The database can't do it.
        """
        self.database.create()

    def check(self) -> None:
        """See that the tables are there and are this version's.

        Raises:
            StoreSetupError: They aren't.
            StoreError: The database can't be asked.
        """
        self.database.check()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction in this database, for programs that have no session of their own.

        It commits at the end of the block, and rolls back if that raises.

        Raises:
            StoreError: The database can't begin or commit it.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(store=SqlStore("sqlite://"), dispatcher="outbox") as app:
            ...     with app.store.transaction() as transaction:
            ...         receipt = app.send("order.paid", {"number": 7}, within=transaction)
            ...     app.message(receipt.message.id).event
            'order.paid'
        """
        with self.database.transaction() as connection:
            yield connection

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Keep a new subscription."""
        self.database.run(lambda c: self._subscriptions.add(c, subscription))

    def save_subscription(self, subscription: Subscription) -> None:
        """Replace the subscription of that id."""
        self.database.run(lambda c: self._subscriptions.save(c, subscription))

    def remove_subscription(self, subscription_id: str) -> bool:
        """Remove it."""
        return self.database.run(lambda c: self._subscriptions.remove(c, subscription_id))

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of that id."""
        return self.database.read(lambda c: self._subscriptions.get(c, subscription_id))

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """A page of all subscriptions, or of one owner's."""
        return self.database.read(lambda c: self._subscriptions.page(c, owner, after, limit))

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """A page of the enabled subscriptions that an event reaches."""
        return self.database.read(
            lambda c: self._subscriptions.matching(c, event, sender, after, limit)
        )

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """The first page of `matching` for each of the first of some messages."""
        return self.database.read(lambda c: self._subscriptions.matching_each(c, messages, limit))

    # -- the way of a message

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed: one INSERT, in the caller's transaction if it is here.

        The transaction of another database can't hold them: they are kept once it has committed,
        which isn't atomic, and a warning says so.

        Raises:
            StoreError: The database can't do it.
            ConfigurationError: The transaction is over, or is used without awaiting.
        """
        if isinstance(within, SqlUnitOfWork):
            with self.database.translating():
                connection = within.connection(self.tables.messages, self.database.same_as)
                if connection is not None:
                    self.database.create_within(connection)
                    with quietly(connection):
                        present = self._messages.insert(connection, messages)
            if connection is not None:
                if written is not None:
                    written(present)
                within.on_commit(self._notifications.tell)
                return
            self._warn_of(within)
        within.on_commit(partial(self._publish, messages, written))

    def _publish(self, messages: Sequence[Message], written: Written | None) -> None:
        if messages:
            present = off_loop(partial(self._insert, messages))
            if written is not None:
                written(present)

    def _insert(self, messages: Sequence[Message]) -> list[str]:
        present = self.database.run(lambda c: self._messages.insert(c, messages))
        self._notifications.tell()
        return present

    def locked_by(self, unit: UnitOfWork) -> bool:
        """True if the transaction is in the same SQLite database, which has one writer at a time.

        Raises:
            ConfigurationError: The transaction is over, or is used without awaiting.
        """
        if self.database.name != "sqlite" or not isinstance(unit, SqlUnitOfWork):
            return False
        return unit.connection(self.tables.messages, self.database.same_as) is not None

    def _warn_of(self, within: SqlUnitOfWork) -> None:
        where = within.place
        if where not in self._strangers:
            self._strangers.add(where)
            logger.warning(
                "messages of transactions in %s are kept in %r, another database, after the"
                " commit: a crash in between loses them",
                where,
                self,
            )

    def claim_messages(
        self, *, now: datetime, lease: timedelta, limit: int, ids: Collection[str] | None = None
    ) -> Sequence[Message]:
        """Lease messages that aren't routed yet."""
        return self.database.run(
            lambda c: self._messages.claim(c, now, lease, limit, ids), lasting=False
        )

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Leave messages that are leased for routing until then."""
        self.database.run(lambda c: self._messages.postpone(c, message_ids, until), lasting=False)

    def route(self, routings: Sequence[Routing]) -> None:
        """Keep deliveries of messages."""
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
            lambda c: self._claims.claim(
                c,
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
        self.database.run(lambda c: self._claims.renew(c, claims, until), lasting=False)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give leases back unused."""
        self.database.run(lambda c: self._claims.release(c, claims), lasting=False)
        self._notifications.tell()

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Subscription]:
        """Write how claims ended."""
        return self.database.run(lambda c: self._claims.settle(c, settlements), lasting=False)

    def next_due(self, now: datetime) -> datetime | None:
        """When what can't be claimed now may be claimable."""
        return self.database.read(lambda c: self._claims.next_due(c, now))

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever there may be something new to claim."""
        return self._notifications.listen(wake)

    # -- history

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        return self.database.read(lambda c: self._messages.get(c, message_id))

    def routed(self, message_id: str) -> bool:
        """True if the message has been routed completely, or is no longer here."""
        return self.database.read(lambda c: self._messages.routed(c, message_id))

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        return self.database.read(lambda c: self._history.delivery(c, delivery_id))

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """A page of deliveries, by age."""
        work = partial(self._history.deliveries, query=query, after=after, limit=limit)
        return self.database.read(partial(work, newest_first=newest_first))

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """A page of the attempts of these deliveries."""
        return self.database.read(lambda c: self._history.attempts(c, delivery_ids, after, limit))

    def count(self, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        return self.database.read(lambda c: self._history.count(c, query))

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make settled deliveries pending again."""
        replayed = self.database.run(lambda c: self._history.replay(c, query, now, limit))
        if replayed:
            self._notifications.tell()
        return replayed

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Remove settled deliveries with their attempts, and messages left without any."""
        gone = self.database.run(lambda c: self._history.purge(c, query, limit))
        if gone < limit and query == DeliveryQuery(until=query.until):
            # Each batch in a transaction of its own: nobody waits for long.
            work = partial(self._history.purge_unreached, until=query.until, limit=limit)
            while self.database.run(work) == limit:
                pass
        return gone

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        return self.database.read(lambda c: self._history.stats(c, now, window))

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period."""
        return self.database.read(lambda c: self._history.periods(c, asked))

    # -- life

    def before_fork(self) -> None:
        """In a process about to fork: close idle connections to a SQLite file."""
        self.database.before_fork()

    def after_fork(self) -> None:
        """In a forked child: leave connections and threads to the parent."""
        self.database.after_fork()
        self._notifications = notifications_of(self.database)

    def close(self) -> None:
        """Let go of the connections."""
        self._notifications.close()
        self.database.close()
