"""The leases of one worker: its deliveries and their expiry times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from thorn_core.ports.store import Store
from thorn_core.values import Claim

logger = logging.getLogger(__name__)


class Leases:
    """The claims of one worker; renews their leases, but not those of direct deliveries' messages.

    Args:
        store: The store of the leases.
        io: Awaits a store function that may block.
        clock: Returns the time, aware UTC.
        seconds: The duration of a lease.
    """

    def __init__(
        self,
        store: Store,
        io: Callable[..., Awaitable[Any]],
        clock: Callable[[], datetime],
        seconds: float,
    ) -> None:
        self._store, self._io, self._clock = store, io, clock
        self._seconds = seconds
        self._claims: dict[str, Claim] = {}
        # Expiry times of leases by token.
        self._until: dict[str, datetime] = {}
        self._keeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._claims)

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._claims

    def has_any(self, delivery_ids: set[str]) -> bool:
        """Return True if any of these deliveries is leased."""
        return not delivery_ids.isdisjoint(self._claims)

    def lasting_from(self, now: datetime) -> timedelta:
        """Return the duration of a lease; `now` may be the start of a long drain."""
        return timedelta(seconds=self._seconds) + max(self._clock() - now, timedelta())

    def add(self, claims: Sequence[Claim], token: str, until: datetime) -> None:
        """Add claims with the expiry time of their leases in the store."""
        if not claims:
            return
        self._until[token] = until
        for claim in claims:
            self._claims[claim.delivery.id] = claim
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    def expired(self, claim: Claim) -> bool:
        """Return True if a claim's lease has expired, such as after a long sleep of the machine."""
        return self._until[claim.token] <= self._clock()

    def drop(self, claims: Iterable[Claim]) -> None:
        """Remove these claims."""
        for claim in claims:
            self._claims.pop(claim.delivery.id, None)

    async def _keep(self) -> None:
        while self._claims:
            await asyncio.sleep(self._seconds / 3)
            held = [claim for claim in self._claims.values() if not claim.direct]
            until = self._clock() + timedelta(seconds=self._seconds)
            try:
                await self._io(self._store.renew, held, until=until)
            except Exception:
                logger.exception("the store failed to renew %d leases", len(held))
                continue
            self._until |= dict.fromkeys({claim.token for claim in held}, until)
            left = {claim.token for claim in self._claims.values()}
            self._until = {token: until for token, until in self._until.items() if token in left}
        self._keeper = None
        self._until.clear()

    async def give_back(self) -> None:
        """Release every claim, and stop renewing leases."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        unused = [claim for claim in self._claims.values() if not claim.direct]
        if unused:
            try:
                await self._io(self._store.release, unused)
            except Exception:
                logger.exception(
                    "the store failed; %d deliveries wait for their leases to expire", len(unused)
                )
        self._claims.clear()
