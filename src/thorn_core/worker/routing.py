"""Routing: the deliveries of messages, written page by page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from thorn_core.delivery import make_delivery, make_unstored_delivery
from thorn_core.values import Delivery, Message, Routing, Subscription
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)


class Router:
    """Finds the recipients of messages, and writes a delivery for each.

    Args:
        wiring: From the app.
        io: Awaits a function of the store's, where it may block.
    """

    def __init__(self, wiring: Wiring, io: Callable[..., Awaitable[Any]]) -> None:
        self._wiring = wiring
        self._settings = wiring.settings
        self._store = wiring.store
        self._io = io

    async def route(self, messages: Sequence[Message], now: datetime) -> int | None:
        """Write the deliveries of messages, in batches of about a chunk.

        Returns:
            How many there are; None if that isn't known, since there are very many or not all
            recipients could be had.
        """
        counts: list[int | None] = []
        directed = [message for message in messages if message.only is not None]
        if directed:
            routings = [await self._direct(message, now) for message in directed]
            await self._io(self._store.route, routings)
            counts += map(_count, routings)
        left = [message for message in messages if message.only is None]
        limit = max(self._settings.chunksize, 1000)
        while left:
            pages, routings = await self._io(self._route_first, left, limit, now)
            counts += map(_count, routings)
            for message, page in zip(left, pages, strict=False):
                if len(page) >= limit:
                    await self._route_on(message, page[-1].id, limit, now)
            left = left[len(pages) :]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _route_first(
        self, messages: Sequence[Message], limit: int, now: datetime
    ) -> tuple[Sequence[Sequence[Subscription]], list[Routing]]:
        """Write the first deliveries of the first of some messages; gives their pages, and these.

        Where the store may block: so may whoever names subscribers, or vetoes them.
        """
        pages = self._store.matching_each(messages, limit=limit)
        routings = [
            self._routing(message, page, now, last=len(page) < limit)
            for message, page in zip(messages, pages, strict=False)
        ]
        self._store.route(routings)
        return pages, routings

    async def _route_on(self, message: Message, after: str, limit: int, now: datetime) -> None:
        """Write the deliveries of a message beyond its first page."""
        page: Sequence[Subscription] | None = None
        while page is None or len(page) == limit:
            await asyncio.sleep(0)
            page = await self._io(self._route_page, message, after, limit, now)
            after = page[-1].id if page else after

    def _route_page(
        self, message: Message, after: str, limit: int, now: datetime
    ) -> Sequence[Subscription]:
        page = self._store.matching(message.event, sender=message.sender, after=after, limit=limit)
        self._store.route([self._routing(message, page, now, last=len(page) < limit)])
        return page

    async def _direct(self, message: Message, now: datetime) -> Routing:
        """The routing of a message to the one subscription that it is for."""
        assert message.only is not None
        found = await self._io(self._store.subscription, message.only)
        chosen = [make_delivery(message, found, now)] if found else []
        return Routing(message=message, deliveries=chosen)

    def _routing(
        self, message: Message, page: Sequence[Subscription], now: datetime, *, last: bool
    ) -> Routing:
        accepts = self._wiring.plugins.accepts
        chosen: list[Delivery] = []
        try:
            chosen += [make_delivery(message, s, now) for s in page if accepts(message, s)]
            if last:
                chosen += [
                    make_unstored_delivery(message, subscription, now)
                    for subscription in self._wiring.unstored(message)
                    if accepts(message, subscription)
                ]
        except Exception:
            # Those had don't wait for the others; the message is routed again after its lease.
            logger.exception("the recipients of %s can't be had; trying again", message.id)
            last = False
        return Routing(message=message, deliveries=chosen, complete=last)


def _count(routing: Routing) -> int | None:
    return len(routing.deliveries) if routing.complete else None
