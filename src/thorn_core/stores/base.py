"""The store port: where subscriptions, messages, deliveries and attempts live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol, Self, runtime_checkable

import attrs

from thorn_core.errors import ConfigurationError
from thorn_core.patterns import check_pattern
from thorn_core.stores.periods import Periods
from thorn_core.unit_of_work import UnitOfWork
from thorn_core.values import (
    Attempt,
    Claim,
    Delivery,
    DeliveryState,
    Message,
    Period,
    Routing,
    Settlement,
    Stats,
    Subscription,
)

# Gets the ids of messages that were there before.
Written = Callable[[Collection[str]], object]


@attrs.frozen(kw_only=True)
class DeliveryQuery:
    """Which deliveries: every criterion given must hold.

    Attributes:
        ids: Only these deliveries.
        message_id: Only of this message.
        subscription_id: Only to this subscription.
        event: Only of events that match this pattern.
        states: Only in one of these states.
        since: Only created at or after this time.
        until: Only created before this time.
    """

    ids: tuple[str, ...] | None = None
    message_id: str | None = None
    subscription_id: str | None = None
    event: str | None = None
    states: tuple[DeliveryState, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def only_settled(self) -> Self:
        """The same, but without what is pending or in flight.

        Example:
            >>> DeliveryQuery(states=(DeliveryState.PENDING,)).only_settled().states
            ()
        """
        states = DeliveryState if self.states is None else self.states
        return attrs.evolve(self, states=tuple(state for state in states if state.settled))


def delivery_query(
    message_id: str | None,
    subscription_id: str | None,
    event: str | None,
    state: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> DeliveryQuery:
    """Make a query of what a user gives.

    Raises:
        ConfigurationError: A state isn't one, or a time has no time zone.
        InvalidNameError: The event isn't a pattern.
    """
    if event is not None:
        check_pattern(event)
    for name, value in (("since", since), ("until", until)):
        if value is not None and value.tzinfo is None:
            raise ConfigurationError(f"{name}={value!r} has no time zone; use an aware datetime")
    states = None
    if state is not None:
        named = (state,) if isinstance(state, str) else tuple(state)
        try:
            states = tuple(DeliveryState(name) for name in named)
        except ValueError as error:
            raise ConfigurationError(
                f"state={state!r}; states are {', '.join(DeliveryState)}"
            ) from error
    return DeliveryQuery(
        message_id=message_id,
        subscription_id=subscription_id,
        event=event,
        states=states,
        since=since,
        until=until,
    )


@runtime_checkable
class Store(Protocol):
    """Where subscriptions, messages, deliveries and attempts live.

    Methods are synchronous, may be called from any thread, and take the time as an argument. Lists
    come ordered by id and are paged by key: `after` is the last id of the page before. Deliveries
    come by age, for their ids don't always tell it: `after` is the last one's `place`. The contract
    in full is `thorn_core.testing.StoreContract`, which every implementation passes.

    Attributes:
        blocking: True if methods wait for I/O; the engine then calls them in a thread.
        shared: True if other processes may work on the same data.
    """

    blocking: bool
    shared: bool

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Keep a new subscription; ConfigurationError if the id is taken."""
        ...

    def save_subscription(self, subscription: Subscription) -> None:
        """Replace the subscription of that id; NotFoundError if there is none."""
        ...

    def remove_subscription(self, subscription_id: str) -> bool:
        """Remove it; its deliveries stay as history. False if there is none."""
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
        """A page of the enabled subscriptions that an event reaches, each once.

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

    # -- the way of a message

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed, in the caller's transaction or when that commits.

        A message whose id is already there is left as it is. `written` is called once the messages
        are written, with the ids that were there before; that may be at the commit. Only keyed
        messages can have such ids. It isn't called where that can't be known.
        """
        ...

    def claim_messages(
        self, *, now: datetime, lease: timedelta, limit: int, ids: Collection[str] | None = None
    ) -> Sequence[Message]:
        """Lease messages that aren't routed yet to the caller, the oldest first.

        While the lease lasts nobody else gets them; after that, anybody. `ids` narrows the choice.
        """
        ...

    def route(self, routings: Sequence[Routing]) -> None:
        """Keep deliveries of messages, all in one go; those already there are left as they are.

        A delivery may be finished already: one that no request can be made for.
        """
        ...

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Leave messages that are leased for routing until then: nobody gets them before."""
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
        """Lease deliveries that are due, fairly between recipients.

        A delivery is due if it is pending and `due_at` has come, or in flight with its lease over;
        and its recipient isn't paused. Recipients take turns; each gets at most
        `per_recipient - busy.get(recipient, 0)`. The same delivery is never leased to two at once.
        """
        ...

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Make the leases last until then, where they are still held."""
        ...

    def release(self, claims: Sequence[Claim]) -> None:
        """Give leases back unused: pending again as before, where they are still held."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Subscription]:
        """Write how claims ended, all in one go.

        Every attempt is recorded. Where the lease is still held, the delivery takes the outcome's
        state, `due_at` and reason. What that does to stored subscriptions and to recipients is
        decided by `stores.rules`: `judge_subscriptions` and `pauses` (the latest pause wins).

        Returns:
            The subscriptions that this call disabled, and the enabled ones whose owners are to be
            warned, as they are now.
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

    # -- history

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        ...

    def routed(self, message_id: str) -> bool:
        """True if the message has been routed completely, or is no longer here."""
        ...

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        ...

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """A page of deliveries by `created_at`, then id; the other way round, the newest first.

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
        """Make settled deliveries pending again, due now, with a fresh retry schedule.

        Returns:
            Those that it changed, at most `limit`; call again until there are none.
        """
        ...

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Remove settled deliveries with their attempts, and routed messages left without any.

        Returns:
            How many deliveries went, at most `limit`; call again until there are none.
        """
        ...

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        ...

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period, the oldest first.

        Looks at no more than the newest `asked.limit` of its deliveries, however many there are.
        """
        ...

    # -- life

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


def settled_pages(store: Store, query: DeliveryQuery, size: int) -> Iterator[DeliveryQuery]:
    """The settled ones among the deliveries asked for, by the page, each once: there may be many.

    Args:
        store: Where they are.
        query: Which.
        size: How many make a page.

    Returns:
        Queries that name deliveries by their ids.
    """
    if query.ids is not None:
        for start in range(0, len(query.ids), size):
            yield attrs.evolve(query, ids=query.ids[start : start + size])
        return
    settled = query.only_settled()
    after: tuple[datetime, str] | None = None
    while page := store.deliveries(settled, after=after, limit=size):
        yield attrs.evolve(settled, ids=tuple(delivery.id for delivery in page))
        if len(page) < size:
            return
        after = page[-1].place
