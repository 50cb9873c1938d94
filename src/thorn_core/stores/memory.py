"""The memory store: everything in this process, bounded, indexed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count, islice

import attrs

from thorn_core.errors import ConfigurationError, NotFoundError, StoreError
from thorn_core.stores import rules
from thorn_core.stores.base import DeliveryQuery, Written
from thorn_core.stores.history import History
from thorn_core.stores.periods import Periods
from thorn_core.stores.queue import TimeQueue
from thorn_core.stores.records import (
    IN_FLIGHT,
    PENDING,
    DeliveryRecord,
    MessageRecord,
    is_being_routed,
    is_leased,
    is_unrouted,
)
from thorn_core.stores.subscription_index import SubscriptionIndex
from thorn_core.stores.turns import Turns
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


class MemoryStore:
    """Keeps everything in this process: for one process, tests and trying things out.

    What is pending is lost with the process. A forked child starts without the messages, which
    remain its parent's, and with the subscriptions.

    Args:
        history: Settled deliveries to keep; beyond that the oldest go, with their messages.
        backlog: Messages and deliveries that may wait; beyond that `publish` raises StoreError.
    """

    blocking = False
    shared = False

    def __init__(self, *, history: int = 10_000, backlog: int = 1_000_000) -> None:
        self._limit = history
        self._backlog = backlog
        self._subscriptions: dict[str, Subscription] = {}
        self._index = SubscriptionIndex()
        self._wakers: list[Callable[[], None]] = []
        self._begin()

    def __repr__(self) -> str:
        return "<MemoryStore>"

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._serial = count()
        self._history = History(self._limit)
        self._unrouted = TimeQueue(is_unrouted)
        self._message_leases = TimeQueue(is_being_routed)
        self._turns = Turns()
        self._leases = TimeQueue(is_leased)
        self._waiting = 0

    # -- subscriptions

    def add_subscription(self, subscription: Subscription) -> None:
        """Keep a new subscription."""
        with self._lock:
            if subscription.id in self._subscriptions:
                raise ConfigurationError(f"the subscription {subscription.id!r} already exists")
            self._subscriptions[subscription.id] = subscription
            self._index.add(subscription)

    def save_subscription(self, subscription: Subscription) -> None:
        """Replace the subscription of that id."""
        with self._lock:
            self._save(subscription)

    def _save(self, subscription: Subscription) -> None:
        former = self._subscriptions.get(subscription.id)
        if former is None:
            raise NotFoundError(f"there is no subscription {subscription.id!r}")
        if (former.events, former.owner, former.enabled) != (
            subscription.events,
            subscription.owner,
            subscription.enabled,
        ):
            self._index.remove(former)
            self._index.add(subscription)
        self._subscriptions[subscription.id] = subscription

    def remove_subscription(self, subscription_id: str) -> bool:
        """Remove it."""
        with self._lock:
            subscription = self._subscriptions.pop(subscription_id, None)
            if subscription is not None:
                self._index.remove(subscription)
            return subscription is not None

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of that id."""
        return self._subscriptions.get(subscription_id)

    def subscriptions(
        self, *, owner: str | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Subscription]:
        """A page of all subscriptions, or of one owner's."""
        with self._lock:
            ids = islice(self._index.owned(owner, after), limit)
            return [self._subscriptions[key] for key in ids]

    def matching(
        self, event: str, *, sender: str | None, after: str | None, limit: int
    ) -> Sequence[Subscription]:
        """A page of the enabled subscriptions that an event reaches."""
        with self._lock:
            ids = islice(self._index.matching(event, sender, after), limit)
            return [self._subscriptions[key] for key in ids]

    def matching_each(
        self, messages: Sequence[Message], *, limit: int
    ) -> Sequence[Sequence[Subscription]]:
        """The first page of `matching` for each of the first of some messages."""
        pages: list[Sequence[Subscription]] = []
        room = limit
        for message in messages:
            page = self.matching(message.event, sender=message.sender, after=None, limit=limit)
            room -= len(page)
            if pages and room < 0:
                break
            pages.append(page)
        return pages

    # -- the way of a message

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed, when the transaction commits.

        Raises:
            StoreError: As many messages and deliveries wait as may.
        """
        if self._waiting + len(messages) > self._backlog:
            raise StoreError(
                f"{self._waiting} messages and deliveries wait in memory, and the limit is"
                f" {self._backlog}; run a worker, or use a database store"
            )
        within.on_commit(partial(self._keep, messages, written))

    def _keep(self, messages: Sequence[Message], written: Written | None) -> None:
        present = []
        with self._lock:
            for message in messages:
                if message.id in self._history.messages:
                    present.append(message.id)
                else:
                    kept = MessageRecord(message, next(self._serial))
                    self._history.messages[message.id] = kept
                    self._unrouted.push(message.at, kept.serial, kept)
                    self._waiting += 1
        if written is not None:
            written(present)
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    def claim_messages(
        self, *, now: datetime, lease: timedelta, limit: int, ids: Collection[str] | None = None
    ) -> Sequence[Message]:
        """Lease messages that aren't routed yet."""
        with self._lock:
            while (first := self._message_leases.first()) and first[0] <= now:
                kept = first[1]
                self._message_leases.pop()
                kept.leased_until = None
                self._unrouted.push(kept.message.at, kept.serial, kept)
            claimed: list[Message] = []
            if ids is not None:
                for key in islice(ids, limit):
                    named = self._history.messages.get(key)
                    if named is not None and is_unrouted(named, now):
                        claimed.append(self._lease_message(named, now + lease))
                return claimed
            while len(claimed) < limit and (first := self._unrouted.first()):
                self._unrouted.pop()
                claimed.append(self._lease_message(first[1], now + lease))
            return claimed

    def _lease_message(self, kept: MessageRecord, until: datetime) -> Message:
        kept.leased_until = until
        self._message_leases.push(until, kept.serial, kept)
        return kept.message

    def postpone(self, message_ids: Sequence[str], *, until: datetime) -> None:
        """Leave messages that are leased for routing until then."""
        with self._lock:
            for key in message_ids:
                kept = self._history.messages.get(key)
                if kept is not None and kept.leased_until is not None and not kept.routed:
                    self._lease_message(kept, until)

    def route(self, routings: Sequence[Routing]) -> None:
        """Keep deliveries of messages."""
        with self._lock:
            for routing in routings:
                kept = self._history.messages.get(routing.message.id)
                if kept is not None:
                    self._route(kept, routing)

    def _route(self, kept: MessageRecord, routing: Routing) -> None:
        for made in routing.deliveries:
            if made.id not in self._history.deliveries:
                delivery = DeliveryRecord(made, next(self._serial), made.state, made.due_at)
                self._history.add(delivery, kept)
                if made.state.settled:
                    delivery.settled_at, delivery.reason = made.settled_at, made.reason
                    self._history.settled(delivery)
                else:
                    self._waiting += 1
                    self._turns.add(delivery)
        if routing.complete and not kept.routed:
            kept.routed = True
            self._waiting -= 1
            if not kept.deliveries:
                self._history.reached_nobody(kept)
            self._history.trim()

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
        until = now + lease
        with self._lock:
            self._take_back(now)
            self._turns.call_up(now)
            if message_ids is None:
                due = self._turns.take(now, limit=limit, per_recipient=per_recipient, busy=busy)
            else:
                due = islice(self._due(message_ids, now, per_recipient, busy), limit)
            return [self._lease(delivery, token, until) for delivery in due]

    def _take_back(self, now: datetime) -> None:
        """Make what is leased beyond its time pending again."""
        while (first := self._leases.first()) and first[0] <= now:
            delivery = first[1]
            self._leases.pop()
            self._unlease(delivery, PENDING)
            self._turns.add(delivery)

    def _due(
        self,
        message_ids: Iterable[str],
        now: datetime,
        per_recipient: int,
        busy: Mapping[str, int],
    ) -> Iterator[DeliveryRecord]:
        """The deliveries of these messages that are due."""
        taken: dict[str, int] = {}
        for message_id in message_ids:
            kept = self._history.messages.get(message_id)
            for key in kept.deliveries if kept is not None else ():
                delivery = self._history.deliveries[key]
                recipient = delivery.made.recipient
                if (
                    delivery.state is PENDING
                    and delivery.due_at <= now
                    and not self._turns.paused(recipient, now)
                    and taken.get(recipient, 0) + busy.get(recipient, 0) < per_recipient
                ):
                    taken[recipient] = taken.get(recipient, 0) + 1
                    yield delivery

    def _lease(self, delivery: DeliveryRecord, token: str, until: datetime) -> Claim:
        delivery.state = IN_FLIGHT
        delivery.token = token
        delivery.leased_until = until
        self._leases.push(until, delivery.serial, delivery)
        made = delivery.made
        return Claim(
            delivery=delivery.value(),
            message=self._history.messages[made.message_id].message,
            subscription=made.target or self._subscriptions.get(made.subscription_id),
            token=token,
        )

    @staticmethod
    def _unlease(delivery: DeliveryRecord, state: DeliveryState) -> None:
        delivery.state = state
        delivery.token = delivery.leased_until = None

    def _held(self, claim: Claim) -> DeliveryRecord | None:
        delivery = self._history.deliveries.get(claim.delivery.id)
        if delivery is None or delivery.state is not IN_FLIGHT or delivery.token != claim.token:
            return None
        return delivery

    def renew(self, claims: Sequence[Claim], *, until: datetime) -> None:
        """Make the leases last until then."""
        with self._lock:
            for claim in claims:
                delivery = self._held(claim)
                if delivery is not None:
                    delivery.leased_until = until
                    self._leases.push(until, delivery.serial, delivery)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give leases back unused."""
        with self._lock:
            for claim in claims:
                delivery = self._held(claim)
                if delivery is not None:
                    self._unlease(delivery, PENDING)
                    self._turns.add(delivery)
        self._wake()

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Subscription]:
        """Write how claims ended."""
        with self._lock:
            held = []
            for settlement in settlements:
                delivery = self._history.deliveries.get(settlement.claim.delivery.id)
                if delivery is None:
                    continue
                mine = self._held(settlement.claim) is not None
                if settlement.attempt is not None:
                    self._history.attempted(delivery, settlement.attempt)
                if mine:
                    self._apply(delivery, settlement)
                    held.append(settlement)
            for recipient, until in rules.pauses(held):
                self._turns.pause(recipient, until)
            self._history.trim()
            return self._judge_subscriptions(held)

    def _apply(self, delivery: DeliveryRecord, settlement: Settlement) -> None:
        outcome = settlement.outcome
        self._unlease(delivery, outcome.state)
        delivery.reason = outcome.reason
        if outcome.state is PENDING:
            delivery.due_at = outcome.due_at or settlement.at
            self._turns.add(delivery)
        else:
            delivery.settled_at = settlement.at
            self._waiting -= 1
            self._history.settled(delivery)

    def _judge_subscriptions(self, settlements: Sequence[Settlement]) -> list[Subscription]:
        keys = {settlement.claim.delivery.subscription_id for settlement in settlements}
        known = {key: self._subscriptions[key] for key in keys if key in self._subscriptions}
        health = {key: rules.health_of(subscription) for key, subscription in known.items()}
        changes = rules.judge_subscriptions(health, settlements)
        for key, after in changes.health.items():
            changed = attrs.evolve(known[key], **attrs.asdict(after))
            if key in changes.disabled:
                changed = attrs.evolve(changed, updated_at=changes.disabled[key])
            self._save(changed)
        return [self._subscriptions[key] for key in sorted({*changes.disabled, *changes.warned})]

    def next_due(self, now: datetime) -> datetime | None:
        """When there may next be something to claim that can't be claimed now."""
        with self._lock:
            firsts = (self._leases.first(), self._message_leases.first())
            times = [first[0] for first in firsts if first is not None]
            later = self._turns.next_time()
            return min([*times, *([later] if later is not None else [])], default=None)

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever there may be something new to claim."""
        self._wakers = [*self._wakers, wake]

        def forget() -> None:
            self._wakers = [other for other in self._wakers if other is not wake]

        return forget

    # -- history

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        kept = self._history.messages.get(message_id)
        return None if kept is None else kept.message

    def routed(self, message_id: str) -> bool:
        """True if the message has been routed completely, or is no longer here."""
        kept = self._history.messages.get(message_id)
        return kept is None or kept.routed

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        delivery = self._history.deliveries.get(delivery_id)
        return None if delivery is None else delivery.value()

    def deliveries(
        self,
        query: DeliveryQuery,
        *,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Delivery]:
        """A page of deliveries, by age."""
        with self._lock:
            found = self._history.found(query, limit, after=after, newest_first=newest_first)
            return [delivery.value() for delivery in found]

    def attempts(
        self, delivery_ids: Sequence[str], *, after: str | None = None, limit: int = 100
    ) -> Sequence[Attempt]:
        """A page of the attempts of these deliveries."""
        with self._lock:
            return self._history.attempts(delivery_ids, after, limit)

    def count(self, query: DeliveryQuery) -> int:
        """How many deliveries there are."""
        with self._lock:
            return self._history.count(query)

    def replay(self, query: DeliveryQuery, *, now: datetime, limit: int) -> Sequence[Delivery]:
        """Make settled deliveries pending again."""
        with self._lock:
            replayed = []
            for delivery in self._history.found(query.only_settled(), limit):
                self._unlease(delivery, PENDING)
                delivery.attempts_before = delivery.attempt_count
                delivery.due_at = now
                delivery.settled_at = delivery.reason = None
                self._history.reopened(delivery)
                self._waiting += 1
                self._turns.add(delivery)
                replayed.append(delivery.value())
        self._wake()
        return replayed

    def purge(self, query: DeliveryQuery, *, limit: int) -> int:
        """Remove settled deliveries with their attempts, and messages left without any."""
        with self._lock:
            return self._history.purge(query, limit)

    def stats(self, *, now: datetime, window: timedelta) -> Stats:
        """What there is, and how attempts went in the time before now."""
        with self._lock:
            return self._history.stats(now, window, len(self._subscriptions))

    def periods(self, asked: Periods) -> Sequence[Period]:
        """How deliveries to one subscription went, period by period."""
        with self._lock:
            return self._history.periods(asked)

    # -- life

    def check(self) -> None:
        """It is always ready."""

    def before_fork(self) -> None:
        """There is nothing to close."""

    def after_fork(self) -> None:
        """Forget what remains the parent's to deliver."""
        self._wakers = []
        self._begin()

    def close(self) -> None:
        """There is nothing to let go of: history can still be read."""
