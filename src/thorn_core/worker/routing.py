"""Routing: writes the deliveries of messages page by page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from thorn_core import signals
from thorn_core.delivery import make_cancelled_delivery, make_delivery, make_unstored_delivery
from thorn_core.message_recipients import INTERNAL
from thorn_core.values import Delivery, Message, Routing, Subscription
from thorn_core.worker.lane import Share
from thorn_core.worker.logs import DefectLog, UndeclaredLog, log_cancelled
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)

# Seconds before the retry of unrouted messages, unless they have already waited longer: minimum and
# maximum.
LEAST_WAIT, MOST_WAIT = timedelta(minutes=1), timedelta(minutes=15)
# Maximum age of a message for further calls of a failing hook: as long as the default policy
# retries a delivery.
GIVE_UP_AFTER = timedelta(hours=76)
# Maximum number of postponed messages to release when the worker stops.
REMEMBERED = 10_000


class Router:
    """Finds the recipients of messages, and inserts a delivery for each.

    If no request to a recipient is possible, its delivery is cancelled. The router calls a failing
    hook again later; other recipients don't wait for it. If a message needs its event's declaration
    and this worker lacks it, the message waits for another worker.

    Args:
        wiring: The app's wiring.
        io: Awaits a store function that may block.
    """

    def __init__(self, wiring: Wiring, io: Callable[..., Awaitable[Any]]) -> None:
        self._wiring = wiring
        self._settings = wiring.settings
        self._store = wiring.store
        self._io = io
        self._defects = DefectLog()
        self._undeclared = UndeclaredLog()
        # Messages in routing whose recipients are incomplete.
        self._failed: set[str] = set()
        # Postponed messages in order of time.
        self._left: dict[str, None] = {}

    async def route(self, messages: Sequence[Message], now: datetime, share: Share) -> int | None:
        """Insert the deliveries of messages, in batches of about a chunk.

        Args:
            messages: The messages.
            now: The current time.
            share: Takes deliveries for the direct lane instead. Only messages of a single page
                that nobody has claimed before have such deliveries.

        Returns:
            The number of deliveries to attempt. None if it is unknown, because there are very many
            or some recipients are missing.
        """
        counts: list[int | None] = []
        known = [message for message in messages if self._wiring.knows(message)]
        directed = [message for message in known if message.only is not None]
        if directed:
            routings = [await self._route_to_one(message, now) for message in directed]
            await self._io(self._store.route, routings)
            counts += map(self._finish, routings)
        left = [message for message in known if message.only is None]
        limit = max(self._settings.chunksize, 1000)
        while left:
            pages, routings = await self._io(self._route_first, left, limit, now, share)
            counts += map(self._finish, routings)
            for message, page in zip(left, pages, strict=False):
                if len(page) >= limit:
                    await self._route_on(message, page[-1].id, limit, now)
            left = left[len(pages) :]
        unknown = [message for message in messages if not self._wiring.knows(message)]
        for message in unknown:
            self._undeclared.warn(message)
        waiting = [message for message in known if message.id in self._failed]
        if unknown or waiting:
            counts.append(None)
            await self._leave([*unknown, *waiting], now)
        counted = [count for count in counts if count is not None]
        return sum(counted) if len(counted) == len(counts) else None

    async def close(self, now: datetime) -> None:
        """Release the postponed messages, so that other workers can claim them."""
        left = list(self._left)
        self._left.clear()
        if left:
            try:
                await self._io(self._store.postpone, left, until=now)
            except Exception:
                logger.exception("the store failed; %d messages wait to be routed", len(left))

    async def _leave(self, messages: Sequence[Message], now: datetime) -> None:
        """Postpone messages, old ones for longer than new ones."""
        waits: dict[timedelta, list[str]] = {}
        for message in messages:
            minutes = min(max(now - message.at, LEAST_WAIT), MOST_WAIT) // LEAST_WAIT
            waits.setdefault(minutes * LEAST_WAIT, []).append(message.id)
            self._failed.discard(message.id)
            self._left.pop(message.id, None)
            self._left[message.id] = None
            if len(self._left) > REMEMBERED:
                del self._left[next(iter(self._left))]
        for wait, ids in waits.items():
            await self._io(self._store.postpone, ids, until=now + wait)

    def _route_first(
        self, messages: Sequence[Message], limit: int, now: datetime, share: Share
    ) -> tuple[Sequence[Sequence[Subscription]], list[Routing]]:
        """Insert the first page of deliveries for the first messages; return pages and routings.

        It runs where the store may block, because callables and plugins may block, too.
        """
        pages = self._store.matching_each(messages, limit=limit)
        routings = [
            self._routing(message, page, now, last=len(page) < limit)
            for message, page in zip(messages, pages, strict=False)
        ]
        subscriptions = {each.id: each for page in pages for each in page}
        self._store.route(self._choose(routings, subscriptions, now, share))
        return pages, routings

    def _choose(
        self,
        routings: Sequence[Routing],
        subscriptions: dict[str, Subscription],
        now: datetime,
        share: Share,
    ) -> list[Routing]:
        """Choose deliveries for the direct lane; return the routings to store."""
        able = [r for r in routings if r.complete and not r.message.claims and share.room]
        for routing in able:
            subscriptions |= {d.subscription_id: d.target for d in routing.deliveries if d.target}
        ids = {
            delivery.subscription_id
            for routing in able
            for delivery in routing.deliveries
            if not delivery.state.finished
        }
        ids = {id_ for id_ in ids if not subscriptions[id_].rate_limit}
        ready = self._store.ready(ids, now=now) if ids else {}
        if not ready:
            return list(routings)
        direct = {routing.message.id for routing in able}
        stored = []
        for routing in routings:
            others = routing.deliveries
            if routing.message.id in direct:
                others = share.choose(routing.message, others, subscriptions, ready)
            if len(others) == len(routing.deliveries):
                stored.append(routing)
            elif others:
                stored.append(attrs.evolve(routing, deliveries=others, complete=False))
        return stored

    async def _route_on(self, message: Message, after: str, limit: int, now: datetime) -> None:
        """Insert the deliveries of a message beyond its first page."""
        page: Sequence[Subscription] | None = None
        while page is None or len(page) == limit:
            await asyncio.sleep(0)
            page, routing = await self._io(self._route_page, message, after, limit, now)
            self._finish(routing)
            after = page[-1].id if page else after

    def _route_page(
        self, message: Message, after: str, limit: int, now: datetime
    ) -> tuple[Sequence[Subscription], Routing]:
        page = self._store.matching(message.event, sender=message.sender, after=after, limit=limit)
        routing = self._routing(message, page, now, last=len(page) < limit)
        self._store.route([routing])
        return page, routing

    async def _route_to_one(self, message: Message, now: datetime) -> Routing:
        """Return the routing of a message to its only subscription."""
        assert message.only is not None
        found = await self._io(self._store.subscription, message.only)
        chosen = [_made(message, found, now, stored=True)] if found else []
        return Routing(message=message, deliveries=chosen)

    def _routing(
        self, message: Message, page: Sequence[Subscription], now: datetime, *, last: bool
    ) -> Routing:
        chosen = [d for s in page for d in self._accepted(message, s, now, stored=True)]
        if last:
            chosen += self._unstored(message, now)
        return Routing(
            message=message, deliveries=chosen, complete=last and message.id not in self._failed
        )

    def _unstored(self, message: Message, now: datetime) -> list[Delivery]:
        """Create the deliveries to recipients outside the store."""
        try:
            unstored = self._wiring.unstored(message)
        except Exception as failure:
            self._note(message, now, failure)
            return []
        for raised in unstored.failures:
            self._note(message, now, raised)
        chosen = [
            delivery
            for subscription in unstored.found
            for delivery in self._accepted(message, subscription, now, stored=False)
        ]
        for item in unstored.impossible:
            if item.failure is not None:
                what = f"a subscriber of {message.event} can't be delivered to"
                self._defects.log(item.failure, what, _about(message))
            chosen.append(
                make_cancelled_delivery(message, item.subscription, item.reason, now, stored=False)
            )
        return chosen

    def _accepted(
        self, message: Message, subscription: Subscription, now: datetime, *, stored: bool
    ) -> Iterator[Delivery]:
        """Create the delivery to a subscription, unless a plugin excludes it or fails."""
        try:
            if self._wiring.plugins.accepts(message, subscription):
                yield _made(message, subscription, now, stored=stored)
        except Exception as failure:
            if not self._note(message, now, failure):
                yield make_cancelled_delivery(message, subscription, INTERNAL, now, stored=stored)

    def _note(self, message: Message, now: datetime, failure: Exception) -> bool:
        """Log a hook's exception and schedule a retry; return False if the message is too old."""
        again = now - message.at < GIVE_UP_AFTER
        then = "will be retried" if again else "are given up"
        what = (
            f"some recipients of message {message.id} of {message.event} could not be determined,"
            f" and {then}"
        )
        self._defects.log(failure, what, _about(message))
        if again:
            self._failed.add(message.id)
        return again

    def _finish(self, routing: Routing) -> int | None:
        """Notify listeners of cancelled deliveries; return the number of the others.

        Skip incomplete messages: they and their cancelled deliveries are routed again.
        """
        if not routing.complete:
            return None
        cancelled = [delivery for delivery in routing.deliveries if delivery.state.finished]
        for delivery in cancelled:
            log_cancelled(delivery, delivery.reason)
            signals.tell(
                signals.delivery_cancelled, self._wiring.app, delivery=delivery, attempt=None
            )
        return len(routing.deliveries) - len(cancelled)


def _made(message: Message, subscription: Subscription, now: datetime, *, stored: bool) -> Delivery:
    make = make_delivery if stored else make_unstored_delivery
    return make(message, subscription, now)


def _about(message: Message) -> dict[str, Any]:
    return {"message_id": message.id, "event": message.event}
