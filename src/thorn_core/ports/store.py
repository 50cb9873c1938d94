"""The store port: holds subscriptions, messages, deliveries and attempts.

Methods are synchronous, run in any thread, and take the time as an argument. Lists are ordered and
paged by id: `after` is the last id of the previous page. The ids of messages and deliveries sort by
the message's time (`thorn_core.keys`). `thorn_core.testing.StoreContract` tests the complete
contract; every implementation passes it.
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

# Takes the ids of duplicate messages (by idempotency key), each with the earlier message's id.
Written = Callable[[Mapping[str, str]], object]
# The token of a lease, and its end.
Lease = tuple[str, datetime]
# Returns the changed subscription for the current one; an exception cancels the change.
Change = Callable[[Subscription], Subscription]


@runtime_checkable
class Subscriptions(Protocol):
    """Stores subscriptions and finds the ones that match an event."""

    def add_subscription(self, subscription: Subscription) -> None:
        """Store a new subscription; raise ConfigurationError if the id exists."""
        ...

    def change_subscription(self, subscription_id: str, change: Change) -> Subscription:
        """Change a subscription under a lock, so that no two changes overwrite each other.

        `change` takes the current subscription. The store may call it again, so it must not use the
        store. `stores.rules.changed` applies to its result: a new URL clears the failures. A new
        URL also ends a pause that the old recipient requested. `change` must not set `paused`.

        Returns:
            The changed subscription.

        Raises:
            NotFoundError: The subscription doesn't exist.
        """
        ...

    def remove_subscription(self, subscription_id: str, *, now: datetime) -> bool:
        """Remove a subscription, but keep its deliveries; return False if it doesn't exist.

        Workers can then claim its waiting deliveries, even if it was paused, so that none waits for
        ever.
        """
        ...

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        ...

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """Return a page of all subscriptions, or of one owner's."""
        ...

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """Return a page of the enabled subscriptions that match an event, paused ones included.

        With a sender, return the sender's subscriptions and those without an owner; without a
        sender, every owner's. Each appears once. The lookup uses the candidate patterns of the
        event's name; its cost doesn't depend on the number of other subscriptions.
        """
        ...

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """Return the first page of `matching` for one or more of the first messages.

        The result covers at least one message, and more if the additional cost is small.
        """
        ...

    def pause(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Hold a subscription's deliveries until `resume`; raise NotFoundError if it doesn't exist.

        New deliveries wait, too. Attempts in flight continue. `updated_at` becomes `now`, unless
        the subscription is already paused.
        """
        ...

    def resume(self, subscription_id: str, *, now: datetime) -> Subscription:
        """Release a subscription's held deliveries; raise NotFoundError if it doesn't exist.

        `updated_at` becomes `now` if the subscription was paused.
        """
        ...


@runtime_checkable
class Outbox(Protocol):
    """Stores messages and hands them out for routing."""

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Store messages for routing, in the caller's transaction or at its commit.

        The store ignores a message with an existing id or an existing `idempotency`. After it has
        written the messages, perhaps at the commit, it calls `written` with the ids of the messages
        whose `idempotency` existed (or came earlier in `messages`) and the ids of the earlier
        messages.
        """
        ...

    def claim_messages(
        self,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        token: str | None = None,
        ids: Collection[str] | None = None,
    ) -> Sequence[Message]:
        """Lease messages that are not routed yet to the caller, the oldest first.

        No other worker gets them before the lease ends. A lease of no duration only looks. `token`
        identifies the lease for the recording of direct claims. `ids` restricts the choice to these
        messages.

        Returns:
            The messages, with the numbers of earlier leases as `claims`.
        """
        ...

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Postpone the routing of leased messages: no worker gets them before the given time."""
        ...

    def route(self, routings: Sequence[Routing], *, leased: Lease | None = None) -> None:
        """Store the deliveries of messages in one transaction; skip existing ones.

        A delivery may already be finished if no request is possible. A routed message may get more
        deliveries; a deleted message gets none. With a lease, the deliveries are in flight.
        """
        ...

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        ...

    def routed(self, message_id: str) -> bool:
        """Return True if the message is routed completely or no longer exists."""
        ...


@runtime_checkable
class Queue(Protocol):
    """Hands out deliveries and records their results. A recipient is a subscription's id."""

    def ready(self, subscription_ids: Collection[str], *, now: datetime) -> Mapping[str, bool]:
        """Return the recipients that a worker may attempt directly, without `claim`.

        They are not paused, neither by `pause` nor on their own request. A store whose claims are
        cheap may return none.

        Returns:
            The recipients, and whether they have deliveries that are due.
        """
        ...

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
        """Lease due deliveries, fairly between subscriptions.

        A delivery is due if it is pending and `due_at` has passed, or if it is in flight and its
        lease has expired. Deliveries are not due while `pause` or
        the recipient's own request pauses their subscription. Subscriptions take turns; each gets
        at most `per_recipient - busy.get(subscription_id, 0)`. Two workers never lease the same
        delivery at once.
        """
        ...

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Extend leases until the given time, unless they have expired or changed hands."""
        ...

    def release(self, claims: Sequence[Claim]) -> None:
        """Release leases without an attempt: held deliveries become pending as before."""
        ...

    def record(
        self, completions: Sequence[Completion], *, routed: Collection[str] = ()
    ) -> Sequence[Subscription]:
        """Record the completions of claims in one transaction.

        The store records every attempt of an existing delivery. If the caller still holds the
        lease, the delivery takes the outcome's state, `due_at` and reason; `delivered` replaces
        `pending` and `in_flight` without a lease, too. `stores.rules` determines the effect on
        subscriptions: `judge_subscriptions` and `pauses` (the latest pause wins).

        The deliveries of direct claims are inserted. If one exists already, because the message's
        lease has ended or the outcome of the first commit was unknown, its completion is late. A
        deleted message gets no delivery.

        Args:
            completions: The completions.
            routed: Ids of messages of direct claims whose other deliveries are stored.

        Returns:
            The subscriptions that this call disabled, and the enabled subscriptions whose owners
            need a warning, both in their current state.
        """
        ...

    def cancel(
        self, query: DeliveryQuery, *, now: datetime, limit: int, reason: str
    ) -> Sequence[Delivery]:
        """Cancel pending deliveries, held ones too, for a reason; leave others unchanged.

        Returns:
            The changed deliveries, at most `limit`; call again until there are none.
        """
        ...

    def next_due(self, now: datetime) -> datetime | None:
        """Return the earliest time at which more work may become claimable; None if unknown."""
        ...

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, from any thread, whenever new work may be claimable.

        Returns:
            A function that ends the calls.
        """
        ...


@runtime_checkable
class History(Protocol):
    """Finds, replays and deletes messages, deliveries and attempts."""

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery with this id, or None."""
        ...

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """Return a page of deliveries ordered by id, or the newest first.

        The cost of a page depends only on the deliveries it contains and those that the criteria
        exclude from it, wherever the page begins.
        """
        ...

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """Return a page of the attempts of these deliveries."""
        ...

    def count(self, query: DeliveryQuery) -> int:
        """Count deliveries."""
        ...

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make finished deliveries pending again: due now, with a new retry schedule.

        Returns:
            The changed deliveries, at most `limit`; call again until there are none.
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
        """Return matching routed messages without a delivery to the subscription.

        Event, sender and `only` decide whether a message matches. The subscription may be disabled
        or newer than the message.

        Args:
            subscription: The subscription.
            since: Only messages sent at or after this time.
            until: Only messages sent before this time.
            after: The position that the previous call returned.
            limit: The number of messages to examine.

        Returns:
            The matching messages among those examined, by id; and the position for the next call,
            or None at the end.
        """
        ...

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Delete finished deliveries with their attempts, and routed messages without deliveries.

        Returns:
            The number of deleted deliveries, at most `limit`; call again until it is 0.
        """
        ...

    def erase(self, sender: str, *, limit: int) -> int:
        """Delete messages of a sender with their deliveries and attempts, in any state.

        The store ignores the results of attempts in flight: erased messages and deliveries stay
        erased.

        Returns:
            The number of deleted messages, at most `limit`; call again until it is 0.
        """
        ...

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """Return counts of the store's contents and statistics of recent attempts."""
        ...

    def periods(self, asked: Periods) -> Sequence[Period]:
        """Return the results of deliveries to one subscription, per period, the oldest first.

        A delivery belongs to the period of its message's time, an attempt to the period of its own
        time. The result covers at most the newest `asked.limit` deliveries.
        """
        ...


@runtime_checkable
class Store(Subscriptions, Outbox, Queue, History, Protocol):
    """All parts of a store and its life cycle.

    Attributes:
        blocking: True if methods wait for I/O; the engine then calls them in a thread.
        shared: True if other processes may use the same data.
    """

    blocking: bool
    shared: bool

    def check(self) -> None:
        """Check that the store is ready for work.

        Raises:
            StoreSetupError: The store needs a setup or migration; the message explains how.
            StoreError: The store doesn't respond.
        """
        ...

    def before_fork(self) -> None:
        """Close resources that a child can't share, such as idle SQLite files, before a fork."""
        ...

    def after_fork(self) -> None:
        """Drop the parent's resources, such as connections and leases, in a forked child."""
        ...

    def close(self) -> None:
        """Close the store's resources; calling it twice is safe."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """A store that can open a transaction in its own database."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Open a transaction for the block; yield the value for `within=`."""
        ...


@runtime_checkable
class WithTables(Protocol):
    """A store with tables that `thorn init-db` creates.

    Attributes:
        place: The location of the tables for messages, without a password.
    """

    place: str

    def create(self) -> str | None:
        """Create or migrate the tables; calling it again has no effect.

        Returns:
            The previous version of the schema, or None if there was none.

        Raises:
            StoreSetupError: Existing tables don't fit this version.
            StoreError: The database reports an error.
        """
        ...

    def version(self) -> str | None:
        """Return the version of the schema; None if other migrations created the tables.

        Raises:
            StoreError: The database doesn't respond.
        """
        ...

    def script(self) -> str:
        """Return the SQL that creates the tables in a new database, each statement with a `;`."""
        ...


@runtime_checkable
class Ambient(Protocol):
    """A store that detects an open transaction in its database by itself, such as Django's.

    A send without `within=` then belongs to that transaction.
    """

    def unit_of_work(self) -> UnitOfWork:
        """Return the unit of work for sends without `within=`: the same one for all threads."""
        ...


@runtime_checkable
class SingleWriter(Protocol):
    """A store that may allow only one writing connection at a time, such as SQLite."""

    def locked_by(self, unit: UnitOfWork) -> bool:
        """Return True if the store can write only inside this transaction."""
        ...
