"""The store port: where subscriptions, messages, deliveries and attempts live.

Methods are synchronous, may be called from any thread, and take the time as an argument. Lists come
ordered by id and are paged by it: `after` is the last id of the page before. The ids of messages
and deliveries sort by the message's time (`thorn_core.keys`). The contract in full is
`thorn_core.testing.StoreContract`, which every implementation passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from thorn_core.periods import Periods
from thorn_core.ports.unit_of_work import UnitOfWork
from thorn_core.queries import DeliveryQuery
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

# Gets the ids of keyed messages that were sent before, each with the id of the earlier message.
Written = Callable[[Mapping[str, str]], object]
# Makes a changed subscription of the one that there is; what it raises leaves that as it is.
Change = Callable[[Subscription], Subscription]


@runtime_checkable
class Subscriptions(Protocol):
    """Keeps subscriptions, and finds those that an event reaches."""

    def add_subscription(self, subscription: Subscription) -> None:
        """Keep a new subscription; ConfigurationError if the id is taken."""
        ...

    def change_subscription(self, subscription_id: str, change: Change) -> Subscription:
        """Change a subscription, under a lock: no two changes undo each other.

        `change` gets the subscription as it is now; it may be called again and uses no store. What
        it makes is subject to `stores.rules.changed`: a new URL forgets failures. It also lifts the
        pause that the old recipient asked for. `paused` is not changed here.

        Returns:
            The subscription as it is then.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def remove_subscription(self, subscription_id: str, *, now: datetime) -> bool:
        """Remove it; its deliveries stay as history. False if there is none.

        What waits for it can be claimed, paused or not, so that it doesn't wait for ever.
        """
        ...

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of that id."""
        ...

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """A page of all subscriptions, or of one owner's."""
        ...

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """A page of the enabled subscriptions that an event reaches, each once; paused ones, too.

        With a sender: those it owns and those without an owner. Without: every owner's. Found by
        the name's candidate patterns, at a cost that doesn't grow with what doesn't match.
        """
        ...

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """The first page of `matching` for each of the first of some messages.

        Answers for one message at least, and for as many more as cost little more.
        """
        ...

    def pause(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Hold its deliveries: none is claimed until it is resumed; NotFoundError if there is none.

        New deliveries wait, too. What is in flight goes on. `updated_at` becomes `now`, unless it
        is paused already.
        """
        ...

    def resume(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Let what was held be claimed when it is due; NotFoundError if there is no subscription.

        `updated_at` becomes `now`, if it was paused.
        """
        ...


@runtime_checkable
class Outbox(Protocol):
    """Takes messages in, and hands them out to be routed."""

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed, in the caller's transaction or when that commits.

        A message whose id is already there is left as it is; one whose `idempotency` is, isn't
        kept. `written` is called once the messages are written, with the ids of those whose
        `idempotency` was there before (or earlier in `messages`) and the ids of the earlier
        messages; that may be at the commit.
        """
        ...

    def claim_messages(
        self, *, now: datetime, lease: timedelta, limit: int, ids: Collection[str] | None = None
    ) -> Sequence[Message]:
        """Lease messages that aren't routed yet to the caller, the oldest first.

        While the lease lasts nobody else gets them; after that, anybody. `ids` narrows the choice.
        """
        ...

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Leave messages that are leased for routing until then: nobody gets them before."""
        ...

    def route(self, routings: Sequence[Routing]) -> None:
        """Keep deliveries of messages, all in one go; those already there are left as they are.

        A delivery may be finished already: one that no request can be made for. A message that is
        routed may get more deliveries; one that is gone gets none.
        """
        ...

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        ...

    def routed(self, message_id: str) -> bool:
        """True if the message has been routed completely, or is no longer here."""
        ...


@runtime_checkable
class Queue(Protocol):
    """Hands out deliveries, and writes how they ended. A recipient is a subscription's id."""

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
        """Lease deliveries that are due, fairly between subscriptions.

        A delivery is due if it is pending and `due_at` has come, or in flight with its lease over;
        and its subscription isn't paused, by `pause` or for a time that its recipient asked for.
        Subscriptions take turns; each gets at most `per_recipient - busy.get(subscription_id, 0)`.
        The same delivery is never leased to two at once.
        """
        ...

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Make the leases last until then, where they are still held."""
        ...

    def release(self, claims: Sequence[Claim]) -> None:
        """Give leases back unused: pending again as before, where they are still held."""
        ...

    def record(self, completions: Sequence[Completion]) -> Sequence[Subscription]:
        """Write how claims ended, all in one go.

        Every attempt is recorded, of deliveries that are still here. Where the lease is still held,
        the delivery takes the outcome's state, `due_at` and reason. What that does to subscriptions
        is decided by `stores.rules`: `judge_subscriptions` and `pauses` (the latest pause wins).

        Returns:
            The subscriptions that this call disabled, and the enabled ones whose owners are to be
            warned, as they are now.
        """
        ...

    def cancel(
        self, query: DeliveryQuery, *, now: datetime, limit: int, reason: str
    ) -> Sequence[Delivery]:
        """Make pending deliveries, held ones too, `cancelled` for a reason; others stay.

        Returns:
            Those that it changed, at most `limit`; call again until there are none.
        """
        ...

    def next_due(self, now: datetime) -> datetime | None:
        """When what can't be claimed now may be claimable; None if nothing is foreseen."""
        ...

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` from any thread whenever there may be something new to claim.

        Returns:
            A function that ends it.
        """
        ...


@runtime_checkable
class History(Protocol):
    """Finds what there was, makes it again, and lets it go."""

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        ...

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """A page of deliveries by id; the other way round, the newest first.

        A page of one subscription's, or of everybody's, costs as much as it holds and what the
        other criteria leave out of it, wherever it begins.
        """
        ...

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """A page of the attempts of these deliveries."""
        ...

    def count(self, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        ...

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make finished deliveries pending again, due now, with a fresh retry schedule.

        Returns:
            Those that it changed, at most `limit`; call again until there are none.
        """
        ...

    def missing(
        self,
        subscription: Subscription,
        *,
        since: datetime,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Sequence[Message], str | None]:
        """Routed messages that reach a subscription and have no delivery to it.

        A message reaches it by its event, its sender and `only`, enabled or not, whenever it was
        made.

        Args:
            subscription: Which.
            since: Only messages sent at or after this time.
            until: Only messages sent before this time.
            after: Where to go on: what the call before gave.
            limit: How many messages to look at.

        Returns:
            Those found among the messages looked at, by id; and where to go on, or None if those
            were the last.
        """
        ...

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Remove finished deliveries with their attempts, and routed messages left without any.

        Returns:
            How many deliveries went, at most `limit`; call again until there are none.
        """
        ...

    def erase(self, sender: str, *, limit: int) -> int:
        """Remove messages of a sender, with their deliveries and attempts, in whatever state.

        What is under way ends without a trace: nothing that is erased comes back.

        Returns:
            How many messages went, at most `limit`; call again until there are none.
        """
        ...

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        ...

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period, the oldest first.

        A delivery belongs to the period of its message's time, an attempt to that of its own. Looks
        at no more than the newest `asked.limit` deliveries, however many there are.
        """
        ...


@runtime_checkable
class Store(Subscriptions, Outbox, Queue, History, Protocol):
    """Where subscriptions, messages, deliveries and attempts live: all of it, and its life.

    Attributes:
        blocking: True if methods wait for I/O; the engine then calls them in a thread.
        shared: True if other processes may work on the same data.
    """

    blocking: bool
    shared: bool

    def check(self) -> None:
        """See whether it is ready for work.

        Raises:
            StoreSetupError: It has to be set up or migrated first; the message says how.
            StoreError: It can't be asked.
        """
        ...

    def before_fork(self) -> None:
        """In a process about to fork: close what a child can't share, as idle SQLite files."""
        ...

    def after_fork(self) -> None:
        """In a forked child: drop what belongs to the parent, such as its connections and work."""
        ...

    def close(self) -> None:
        """Let go of what is held open; calling it twice is fine."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """A store that can open a transaction in its own database."""

    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction that ends with the block; gives what `within=` takes."""
        ...


@runtime_checkable
class WithTables(Protocol):
    """A store whose tables `thorn init-db` creates.

    Attributes:
        place: Where they are, to be shown: no password.
    """

    place: str

    def create(self) -> str | None:
        """Create the tables, or migrate them; calling it again changes nothing.

        Returns:
            The version of the schema that was there before; None if there was none.

        Raises:
            StoreSetupError: There are tables that this version can't use.
            StoreError: The database can't do it.
        """
        ...

    def version(self) -> str | None:
        """The version of the schema that is there; None if other migrations made it.

        Raises:
            StoreError: The database can't be asked.
        """
        ...

    def script(self) -> str:
        """The SQL statements that create the tables in a new database, each ended by `;`."""
        ...


@runtime_checkable
class Ambient(Protocol):
    """A store that sees by itself whether a transaction is open in its database, as Django's does.

    A send without `within=` then belongs to it.
    """

    def unit_of_work(self) -> UnitOfWork:
        """The unit of work of sends without `within=`: one for all, whatever thread they are in."""
        ...


@runtime_checkable
class SingleWriter(Protocol):
    """A store whose database may let one connection write at a time, as SQLite does."""

    def locked_by(self, unit: UnitOfWork) -> bool:
        """True if a transaction keeps the store from writing anywhere but in that transaction."""
        ...
