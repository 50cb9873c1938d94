"""The engine: routes messages, claims deliveries and attempts them, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from thorn_core.delivery import in_flight
from thorn_core.values import Claim
from thorn_core.worker.attempts import Attempts
from thorn_core.worker.lane import Lane
from thorn_core.worker.leases import Leases
from thorn_core.worker.load import SLOW_SECONDS, Load
from thorn_core.worker.recorder import Recorder
from thorn_core.worker.routing import Router
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)
T = TypeVar("T")

STORE_THREADS = 4


class Engine:
    """Routes, claims and attempts deliveries for one worker, on one event loop.

    Args:
        wiring: The app's wiring.
        deliver: Delivers the messages with these ids.

    Attributes:
        load: Requests in flight.
        leases: Deliveries under lease.
        wake: Set when there may be work.
        progress: Set, and replaced, when a delivery has ended.
        routable: Whether there may be messages to route.
        stopping: Set when no new work may start.
    """

    def __init__(
        self,
        wiring: Wiring,
        deliver: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        self._wiring = wiring
        self._settings = wiring.settings
        self._store = wiring.store
        self._name = f"{os.getpid():x}.{os.urandom(4).hex()}"
        self._tokens = 0
        self._loop = asyncio.get_running_loop()
        # Query a slow store early.
        self._ahead = wiring.settings.chunksize if self._store.blocking else 0
        self._executor = (
            ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="thorn-store")
            if self._store.blocking
            else None
        )
        self.load = Load(wiring.settings, self._ahead)
        self.leases = Leases(self._store, self._io, wiring.clock, wiring.settings.lease)
        self.wake = asyncio.Event()
        self.progress = asyncio.Event()
        self.routable = True
        self.stopping = False
        self._router = Router(wiring, self._io)
        self._lane = Lane(self.load, wiring.settings)
        self._recorder = Recorder(
            wiring,
            self._io,
            load=self.load,
            lane=self._lane,
            leases=self.leases,
            recorded=self._recorded,
            deliver=deliver,
        )
        self._transport = wiring.make_transport()
        self._attempts = Attempts(wiring, self._transport, self.load)
        self._slots: set[asyncio.Task[None]] = set()
        self._refill: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's event loop."""
        return self._loop

    def interrupt(self) -> None:
        """Wake all tasks that wait for work or for progress."""
        self.wake.set()
        self.progress.set()

    async def close(self) -> None:
        """Give requests in flight the grace period to finish, and return the rest to pending."""
        self.stopping = True
        for timer in (self._refill, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._refill = self._sweeper = None
        self.load.forget_waiting()
        if self._slots:
            await asyncio.wait(self._slots, timeout=self._settings.grace_period)
        for slot in self._slots:
            slot.cancel()
        if self._slots:
            await asyncio.wait(self._slots)
        await self._recorder.close()
        await self._router.close(self._wiring.clock())
        await self.leases.give_back()
        # Let all tasks that wait for progress see that the engine has stopped.
        self.progress.set()
        await self._transport.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    async def _io(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self._executor is None:
            return function(*args, **kwargs)
        call = partial(function, *args, **kwargs)
        try:
            future = self._executor.submit(call)
        except RuntimeError:
            # At interpreter exit the executors have ended; no other task waits for the loop now.
            return call()
        self._wiring.calls.add(future)
        future.add_done_callback(self._wiring.calls.discard)
        return await asyncio.wrap_future(future)

    # -- routing

    async def pump(self, now: datetime, started: set[str] | None = None) -> int:
        """Route and claim once; return the numbers of messages and claims."""
        if not self.leases or self._executor is None:
            routed = await self._route_some(now, started)
            return routed + await self.claim_some(now, None, started)
        # Requests in flight don't wait for the routing of other messages.
        both = await asyncio.gather(
            self._route_some(now, started),
            self.claim_some(now, None, started),
            return_exceptions=True,
        )
        counted = 0
        for count in both:
            if isinstance(count, BaseException):
                raise count
            counted += count
        return counted

    async def _route_some(self, now: datetime, started: set[str] | None) -> int:
        # Claim only messages whose deliveries can start soon.
        crowded = self._lane.waiting > self._settings.chunksize // 2 or not self._lane.room
        if not self.routable or crowded:
            return 0
        self.routable = False
        limit = min(self._settings.chunksize, self._lane.room)
        try:
            routed, _ = await self._route_chunk(now, limit, None, started)
        except BaseException:
            self.routable = True
            raise
        # Fewer messages than there was room for would be the last ones.
        self.routable = self.routable or routed == limit
        return routed

    async def route_named(
        self,
        message_ids: Collection[str],
        now: datetime,
        started: set[str],
        *,
        at_once: bool = False,
    ) -> int | None:
        """Route those of these messages that are not routed yet; start deliveries directly.

        Args:
            message_ids: The messages' ids.
            now: The current time.
            started: A set; the call adds the ids of the started deliveries.
            at_once: Ignore the limits per recipient.

        Returns:
            The number of their deliveries if this call routed all of them, else None.
        """
        ids, size = list(dict.fromkeys(message_ids)), self._settings.chunksize
        counts: list[int] = []
        for start in range(0, len(ids), size):
            some = ids[start : start + size]
            routed, made = await self._route_chunk(now, size, some, started, at_once=at_once)
            if routed == len(some) and made is not None:
                counts.append(made)
        return sum(counts) if len(counts) * size >= len(ids) else None

    async def _route_chunk(
        self,
        now: datetime,
        limit: int,
        ids: Collection[str] | None,
        started: set[str] | None,
        *,
        at_once: bool = False,
    ) -> tuple[int, int | None]:
        token, lease = self._token(), self.leases.lasting_from(now)
        named = ids is not None
        wanted = self.load.wanted(len(self._recorder))
        with self._lane.sharing(wanted, named=named, at_once=at_once) as share:
            messages = await self._io(
                self._store.claim_messages,
                now=now,
                lease=lease,
                limit=limit,
                token=token,
                ids=ids,
            )
            made = await self._router.route(messages, now, share)
            claims = [
                Claim(
                    delivery=in_flight(delivery),
                    message=message,
                    subscription=subscription,
                    token=token,
                    direct=True,
                )
                for message, delivery, subscription in share.chosen
            ]
            self._lane.add(claims, named=named, started=started)
        self._begin(claims, token, now + lease, started, at_once=at_once)
        if claims and self._sweeper is None:
            self._sweeper = self._loop.call_later(self._lane.sweep_seconds, self._sweep)
        return len(messages), made

    def _sweep(self) -> None:
        self._sweeper = None
        if self._lane and not self.stopping:
            self._recorder.sweep()
            self._sweeper = self._loop.call_later(self._lane.sweep_seconds, self._sweep)

    def _begin(
        self,
        claims: Sequence[Claim],
        token: str,
        until: datetime,
        started: set[str] | None,
        *,
        at_once: bool,
    ) -> None:
        """Queue claims, and start as many as there are slots."""
        self.leases.add(claims, token, until)
        self.load.claimed(claims, at_once=at_once)
        self._fill_slots()
        if started is not None:
            started.update(claim.delivery.id for claim in claims)

    # -- claims

    async def claim_some(
        self,
        now: datetime,
        message_ids: Collection[str] | None,
        started: set[str] | None,
        *,
        at_once: bool = False,
    ) -> int:
        """Claim as many deliveries as the capacity allows, and start them.

        Args:
            now: Claim only deliveries due at this time.
            message_ids: Restricts the choice to these messages.
            started: A set; the call adds the ids of the claimed deliveries.
            at_once: Ignore the limits per recipient.

        Returns:
            The number of claimed deliveries.
        """
        self._fill_slots()
        if self.full or self.stopping:
            return 0
        token, lease = self._token(), self.leases.lasting_from(now)
        limit = self.load.wanted(len(self._recorder))
        claims = await self._io(
            self._store.claim,
            now=now,
            lease=lease,
            limit=limit,
            token=token,
            per_recipient=limit if at_once else self.load.per_recipient,
            busy={} if at_once else self._busy(),
            message_ids=message_ids,
        )
        # Don't restart a delivery that is still in flight here after its lease has expired.
        fresh = [claim for claim in claims if claim.delivery.id not in self.leases]
        self._begin(fresh, token, now + lease, started, at_once=at_once)
        return len(fresh)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._name}.{self._tokens}"

    def _busy(self) -> Mapping[str, int]:
        busy = self.load.by_recipient()
        return busy if self._executor is None else dict(busy)

    @property
    def full(self) -> bool:
        """True if there is no capacity for more claims."""
        return self.load.wanted(len(self._recorder)) <= self._ahead // 2

    async def any_due(
        self, cutoff: datetime, message_ids: Collection[str], recipients: Collection[str]
    ) -> bool:
        """Return True if any of these messages has unstarted deliveries to some recipients."""
        if not recipients:
            return False
        # Claim one delivery to find out, and release it: a list would need a query per message.
        others = self.load.crowded().difference(recipients)
        claims = await self._io(
            self._store.claim,
            now=cutoff,
            lease=self.leases.lasting_from(cutoff),
            limit=1,
            token=self._token(),
            per_recipient=1,
            busy=dict.fromkeys(others, 1),
            message_ids=message_ids,
        )
        if claims:
            await self._io(self._store.release, claims)
        return bool(claims)

    # -- attempts

    def _fill_slots(self) -> None:
        """Start requests for waiting deliveries, as far as there is capacity."""
        startable = self.load.startable
        idle = len(self._slots) - self.load.in_flight
        for _ in range(min(startable, self.load.room(len(self._recorder))) - idle):
            self._slots.add(self._loop.create_task(self._work()))
        if startable and self._refill is None:
            # Requests in flight become slow and make room, even if none has ended.
            self._refill = self._loop.call_later(SLOW_SECONDS, self._refill_slots)

    def _refill_slots(self) -> None:
        self._refill = None
        if not self.stopping:
            self._fill_slots()

    async def _work(self) -> None:
        """Attempt waiting deliveries one at a time until none can start."""
        slot = asyncio.current_task(self._loop)
        assert slot is not None
        try:
            await self._work_off(self.load)
        finally:
            self._slots.discard(slot)

    async def _work_off(self, load: Load) -> None:
        while load.room(len(self._recorder)) and (claim := load.next()) is not None:
            if self.leases.expired(claim):
                # Another worker may have claimed it meanwhile.
                logger.warning("the lease of %s expired before its request", claim.delivery.id)
                load.ended(claim)
                self._drop(claim)
                continue
            self._lane.begun(claim)
            try:
                completion = await self._attempts.deliver(claim)
            except Exception:
                # A defect: the delivery is retried when its lease expires.
                logger.exception("delivery %s could not be attempted", claim.delivery.id)
                self._drop(claim)
                continue
            finally:
                load.ended(claim)
                self.wake.set()
            self._lane.ended(claim)
            self._recorder.add(completion)

    def _drop(self, claim: Claim) -> None:
        self._lane.forget(claim)
        self.leases.drop([claim])
        self._progressed()

    def _recorded(self, claims: Sequence[Claim]) -> None:
        self.leases.drop(claims)
        if not self.stopping:
            self._fill_slots()
        self.wake.set()
        self._progressed()

    def _progressed(self) -> None:
        progress, self.progress = self.progress, asyncio.Event()
        progress.set()
