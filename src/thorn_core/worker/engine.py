"""The worker: routes messages, claims deliveries, has them attempted, settles outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Self, TypeVar

import attrs

from thorn_core import signals
from thorn_core.delivery import disabled_message
from thorn_core.errors import ConfigurationError, StoreError
from thorn_core.transports.base import Transport
from thorn_core.unit_of_work import IMMEDIATE
from thorn_core.values import (
    Claim,
    DeliveryState,
    Settlement,
    Subscription,
)
from thorn_core.worker.attempts import Attempts
from thorn_core.worker.load import SLOW_SECONDS, Load
from thorn_core.worker.routing import Router
from thorn_core.worker.thread import LoopThread, result_of, stopping_on_signals
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)
T = TypeVar("T")

STORE_THREADS = 4
# Seconds between attempts on a store that fails; at first no longer than between looks at it.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0


class Worker:
    """The engine at work on a store; made by `Thorn.worker()`.

    It belongs to the event loop that it first works on: `run` and `drain` use the app's own,
    `arun` and `adrain` the caller's.

    Args:
        wiring: From the app.
        thread: The app's loop thread.
    """

    def __init__(self, wiring: Wiring, thread: LoopThread) -> None:
        self._wiring = wiring
        self._thread = thread
        self._settings = wiring.settings
        self._store = wiring.store
        self._lease = timedelta(seconds=wiring.settings.lease)
        self._name = f"{os.getpid():x}.{os.urandom(4).hex()}"
        self._tokens = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: Transport | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._stopping = False
        # Whether there may be messages to route.
        self._routable = True
        # A store that takes its time is asked early.
        self._ahead = wiring.settings.chunksize if self._store.blocking else 0
        self._load = Load(wiring.settings, self._ahead)
        self._router = Router(wiring, self._io)
        self._held: dict[str, Claim] = {}
        # When the lease of a token's claims is over.
        self._until: dict[str, datetime] = {}
        self._unsettled: list[Settlement] = []
        self._lanes: set[asyncio.Task[None]] = set()
        self._settler: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._notices: set[asyncio.Task[int]] = set()

    # -- running it

    def run(self) -> None:
        """Work until `stop`, SIGTERM or Ctrl-C; then end requests under way, and return.

        A second Ctrl-C doesn't wait for them.
        """
        future = self._thread.submit(self.arun())
        with stopping_on_signals(self.stop):
            result_of(future)

    def drain(self) -> int:
        """Route and deliver all that is due now, each delivery once, and let go.

        Returns:
            How many were tried.
        """
        return self._thread.run(self._drain_and_close())

    async def _drain_and_close(self) -> int:
        try:
            return await self.adrain()
        finally:
            await self.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Make `run` or `drain` return soon; from any thread or signal handler."""
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        """End the waiting in `arun` and in `adrain`."""
        self._wake.set()
        self._progress.set()

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once."""
        return self._settings.concurrency

    @property
    def in_flight(self) -> int:
        """How many deliveries it holds: being requested, about to be, or about to be settled."""
        return len(self._held)

    async def arun(self) -> None:
        """Work on the caller's loop until `stop` or cancellation."""
        self._bind()
        forget = self._store.on_work(self._woken)
        delay = 0.0
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    worked = await self._pump(self._wiring.clock())
                except Exception as error:
                    first = min(self._settings.poll_interval, FIRST_DELAY)
                    delay = min(max(2 * delay, first), LONGEST_DELAY)
                    _log_failure("can't work", error, delay)
                    await self._sleep(delay)
                    continue
                if delay:
                    logger.warning("the store works again", extra={"retry_in": None})
                    delay = 0.0
                if worked:
                    await asyncio.sleep(0)
                else:
                    await self._pause(self._patience())
        finally:
            forget()
            await self.aclose()

    async def adrain(self, message_ids: Collection[str] | None = None) -> int:
        """Route and deliver what is due now, of all messages or of these, each delivery once.

        Connections stay open for the next time; `aclose` or `async with` closes them.

        Args:
            message_ids: Only these.

        Returns:
            How many were tried.
        """
        self._bind()
        self._routable = True
        cutoff = self._wiring.clock()
        mine: set[str] = set()
        wanted = None
        if message_ids is not None:
            wanted = await self._route_named(message_ids, cutoff)
        while not self._stopping:
            progress = self._progress
            if len(mine) == wanted:
                # The store has no more of these: it needn't be asked.
                if mine.isdisjoint(self._held):
                    break
                await progress.wait()
                continue
            if message_ids is None:
                worked = await self._pump(cutoff, mine)
            else:
                worked = await self._claim_some(cutoff, message_ids, mine)
            # What ends while the store is asked makes room for what it didn't give.
            if worked or progress.is_set():
                continue
            if mine.isdisjoint(self._held) and not await self._crowded(cutoff, message_ids):
                break
            await progress.wait()
        return len(mine)

    async def abegin(self, message_ids: Collection[str], seconds: float) -> bool:
        """Route these messages and begin requests of what of them is due; those then go on.

        It waits for room: while as many requests are under way as may be, in all or to a recipient.
        What is to go to one that answers none of them is left to the store.

        Args:
            message_ids: Which.
            seconds: How long at most, calls of the store not counted.

        Returns:
            False if time was up before all was begun.
        """
        self._bind()
        cutoff = self._wiring.clock()
        until = monotonic() + seconds
        wanted = await self._route_named(message_ids, cutoff)
        begun: set[str] = set()
        while not self._stopping:
            if len(begun) == wanted:
                return True
            progress = self._progress
            # As the claim sees it: meanwhile, there may be room again.
            full, crowded = self._full, self._load.crowded() - self._load.stuck()
            if not await self._claim_some(cutoff, message_ids, begun):
                if not (full or await self._any_due(cutoff, message_ids, crowded)):
                    return True
                # Recipients become slow without anything having ended.
                patience = min(until - monotonic(), SLOW_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(progress.wait(), max(patience, 0))
            if monotonic() >= until:
                return False
        return False

    async def aclose(self) -> None:
        """End requests under way within the grace period, return the rest to pending, let go."""
        if self._loop is None:
            self._stopping = False
            return
        self._stopping = True
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        self._load.forget_waiting()
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=self._settings.grace_period)
        for lane in self._lanes:
            lane.cancel()
        if self._lanes:
            await asyncio.wait(self._lanes)
        if self._settler is not None:
            await self._settler
        for task in (self._keeper, *self._notices):
            if task is not None:
                task.cancel()
        unused = list(self._held.values())
        if unused:
            try:
                await self._io(self._store.release, unused)
            except Exception:
                logger.exception(
                    "the store failed; %d deliveries wait for their leases to end", len(unused)
                )
        self._held.clear()
        self._lanes.clear()
        self._unsettled.clear()
        # Whoever waits in `adrain` sees that it's over.
        self._progress.set()
        if self._transport is not None:
            await self._transport.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._transport = self._executor = self._loop = self._keeper = None
        self._stopping = False

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise ConfigurationError(
                "this worker works on another event loop; make one for this loop with app.worker()"
            )
        self._loop = loop
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._transport = self._wiring.make_transport()
        self._attempts = Attempts(self._wiring, self._transport, self._load)
        if self._store.blocking:
            self._executor = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="thorn-store")

    async def _io(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self._executor is None or self._loop is None:
            return function(*args, **kwargs)
        call = partial(function, *args, **kwargs)
        try:
            future = self._loop.run_in_executor(self._executor, call)
        except RuntimeError:
            # The interpreter ends, and its executors have: nobody but this waits for the loop now.
            return call()
        return await future

    def _woken(self) -> None:
        self._routable = True
        loop = self._loop
        if loop is not None and not self._wake.is_set():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake.set)

    async def _pause(self, seconds: float) -> None:
        assert self._loop is not None
        timer = self._loop.call_later(seconds, self._look_again)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _look_again(self) -> None:
        self._routable = True
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait, whatever there may be to do, unless it is to stop."""
        assert self._loop is not None
        until = self._loop.time() + seconds
        while not self._stopping and (left := until - self._loop.time()) > 0:
            self._wake.clear()
            await self._pause(left)

    def _patience(self) -> float:
        longest = self._settings.poll_interval
        if self._load.full:
            longest = min(longest, SLOW_SECONDS)
        if self._store.shared:
            return longest
        now = self._wiring.clock()
        due = self._store.next_due(now)
        if due is None:
            return longest
        return min(longest, max((due - now).total_seconds(), 0.001))

    # -- route and claim

    async def _pump(self, now: datetime, started: set[str] | None = None) -> int:
        """Route and claim once; returns how much there was of both."""
        if not self._held or self._executor is None:
            routed = await self._route_some(now)
            return routed + await self._claim_some(now, None, started)
        # Requests are under way: they don't wait for the routing of others.
        both = await asyncio.gather(
            self._route_some(now),
            self._claim_some(now, None, started),
            return_exceptions=True,
        )
        counted = 0
        for count in both:
            if isinstance(count, BaseException):
                raise count
            counted += count
        return counted

    async def _route_some(self, now: datetime) -> int:
        if not self._routable:
            return 0
        self._routable = False
        try:
            routed, _ = await self._route_chunk(now)
        except BaseException:
            self._routable = True
            raise
        if routed == self._settings.chunksize:
            self._routable = True
        return routed

    async def _route_named(self, message_ids: Collection[str], now: datetime) -> int | None:
        """Route those of these messages that aren't.

        Returns:
            How many deliveries these have, if that is known: if all were routed now.
        """
        ids, size = list(dict.fromkeys(message_ids)), self._settings.chunksize
        counts: list[int] = []
        for start in range(0, len(ids), size):
            some = ids[start : start + size]
            routed, made = await self._route_chunk(now, some)
            if routed == len(some) and made is not None:
                counts.append(made)
        return sum(counts) if len(counts) * size >= len(ids) else None

    async def _route_chunk(
        self, now: datetime, ids: Collection[str] | None = None
    ) -> tuple[int, int | None]:
        messages = await self._io(
            self._store.claim_messages,
            now=now,
            lease=self._lease_from(now),
            limit=self._settings.chunksize,
            ids=ids,
        )
        return len(messages), await self._router.route(messages, now)

    async def _claim_some(
        self, now: datetime, message_ids: Collection[str] | None, started: set[str] | None
    ) -> int:
        self._fill_lanes()
        if self._full or self._stopping:
            return 0
        self._tokens += 1
        token, lease = f"{self._name}.{self._tokens}", self._lease_from(now)
        claims = await self._io(
            self._store.claim,
            now=now,
            lease=lease,
            limit=self._load.wanted(len(self._unsettled)),
            token=token,
            per_recipient=self._load.per_recipient,
            busy=self._busy(),
            message_ids=message_ids,
        )
        # One that is under way here, its lease having ended all the same, isn't begun again.
        fresh = [claim for claim in claims if claim.delivery.id not in self._held]
        if fresh:
            self._until[token] = now + lease
        self._start(fresh)
        if started is not None:
            started.update(claim.delivery.id for claim in fresh)
        return len(fresh)

    def _lease_from(self, now: datetime) -> timedelta:
        """How long a lease is to be, if `now` is when a long drain began."""
        return self._lease + max(self._wiring.clock() - now, timedelta())

    def _busy(self) -> Mapping[str, int]:
        busy = self._load.by_recipient()
        return busy if self._executor is None else dict(busy)

    async def _crowded(self, cutoff: datetime, message_ids: Collection[str] | None) -> bool:
        """True if some of these deliveries only wait for others' requests to end."""
        if not self._held:
            return False
        if message_ids is None:
            return True
        if self._full:
            return True
        return await self._any_due(cutoff, message_ids, self._load.crowded())

    @property
    def _full(self) -> bool:
        """Whether nothing more is claimed, whoever it is for."""
        return self._load.wanted(len(self._unsettled)) <= self._ahead // 2

    async def _any_due(
        self, cutoff: datetime, message_ids: Collection[str], recipients: Collection[str]
    ) -> bool:
        """Whether any of these messages' deliveries to some recipients are still to be begun."""
        if not recipients:
            return False
        # A claim of one tells, and is given back: a list would be asked for message by message.
        others = self._load.crowded().difference(recipients)
        self._tokens += 1
        claims = await self._io(
            self._store.claim,
            now=cutoff,
            lease=self._lease_from(cutoff),
            limit=1,
            token=f"{self._name}.{self._tokens}",
            per_recipient=1,
            busy=dict.fromkeys(others, 1),
            message_ids=message_ids,
        )
        if claims:
            await self._io(self._store.release, claims)
        return bool(claims)

    def _start(self, claims: Sequence[Claim]) -> None:
        assert self._loop is not None
        for claim in claims:
            self._held[claim.delivery.id] = claim
        self._load.claimed(claims)
        self._fill_lanes()
        if self._keeper is None and claims:
            self._keeper = self._loop.create_task(self._keep_leases())

    def _fill_lanes(self) -> None:
        """Begin requests for what waits, as far as there is room."""
        assert self._loop is not None
        startable = self._load.startable
        for _ in range(min(startable, self._load.lanes() - len(self._lanes))):
            self._lanes.add(self._loop.create_task(self._work()))
        if startable and self._refill is None:
            # Requests under way become slow without anything having ended, and make room.
            self._refill = self._loop.call_later(SLOW_SECONDS, self._refill_lanes)

    def _refill_lanes(self) -> None:
        self._refill = None
        if not self._stopping:
            self._fill_lanes()

    async def _keep_leases(self) -> None:
        while self._held:
            await asyncio.sleep(self._settings.lease / 3)
            held = list(self._held.values())
            until = self._wiring.clock() + self._lease
            try:
                await self._io(self._store.renew, held, until=until)
            except Exception:
                logger.exception("the store failed to renew %d leases", len(held))
                continue
            self._until |= dict.fromkeys({claim.token for claim in held}, until)
            left = {claim.token for claim in self._held.values()}
            self._until = {token: until for token, until in self._until.items() if token in left}
        self._keeper = None
        self._until.clear()

    # -- deliver

    async def _work(self) -> None:
        """A lane: attempts what waits, one after the other, until nothing can begin."""
        lane = asyncio.current_task(self._loop)
        assert lane is not None
        try:
            await self._work_off(self._load)
        finally:
            self._lanes.discard(lane)

    async def _work_off(self, load: Load) -> None:
        while (claim := load.next()) is not None:
            if self._until[claim.token] <= self._wiring.clock():
                # As after a long sleep of the machine: another worker may have it by now.
                logger.warning("the lease of %s ended before its request", claim.delivery.id)
                load.ended(claim)
                self._drop(claim)
                continue
            try:
                settlement = await self._attempts.deliver(claim)
            except Exception:
                # A defect; the delivery is tried again when its lease, renewed no more, is over.
                logger.exception("delivery %s could not be attempted", claim.delivery.id)
                self._drop(claim)
                continue
            finally:
                load.ended(claim)
                self._wake.set()
            self._unsettled.append(settlement)
            if self._settler is None:
                assert self._loop is not None
                self._settler = self._loop.create_task(self._settle())

    def _drop(self, claim: Claim) -> None:
        self._held.pop(claim.delivery.id, None)
        self._progressed()

    def _progressed(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()

    # -- settle

    async def _settle(self) -> None:
        """Write what has ended, in batches, until there is no more."""
        delay = 0.1
        while self._unsettled:
            batch = self._unsettled[: self._settings.chunksize]
            try:
                disabled = await self._io(self._store.settle, batch)
            except Exception as error:
                _log_failure("can't settle", error, delay)
                if self._stopping:
                    break
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            delay = 0.1
            del self._unsettled[: len(batch)]
            for settlement in batch:
                self._held.pop(settlement.claim.delivery.id, None)
                self._tell(settlement)
            if disabled:
                await self._announce(disabled, batch[-1].at)
            self._wiring.progressed()
            self._progressed()
        self._settler = None

    async def _announce(self, disabled: Sequence[Subscription], at: datetime) -> None:
        for subscription in disabled:
            signals.tell(signals.subscription_disabled, self._wiring.app, subscription=subscription)
        messages = [disabled_message(subscription, at) for subscription in disabled]
        try:
            await self._io(self._store.publish, messages, within=IMMEDIATE)
        except Exception:
            logger.exception("the owners of %d subscriptions can't be told", len(disabled))
            return
        # Nobody else may be there to deliver them: with `inline`, each send sees to its own.
        assert self._loop is not None
        notice = self._loop.create_task(self.adrain([message.id for message in messages]))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    def _tell(self, settlement: Settlement) -> None:
        wiring = self._wiring
        delivery, attempt = settlement.claim.delivery, settlement.attempt
        if attempt is not None:
            wiring.attempted(attempt, delivery)
            wiring.plugins.attempted(attempt, delivery)
            signals.tell(signals.attempt_made, wiring.app, attempt=attempt, delivery=delivery)
        told = _TOLD.get(settlement.outcome.state)
        if told is not None and told.receivers:
            ended = attrs.evolve(
                delivery,
                state=settlement.outcome.state,
                reason=settlement.outcome.reason,
                settled_at=settlement.at,
                attempt_count=delivery.attempt_count + (attempt is not None),
            )
            signals.tell(told, wiring.app, delivery=ended, attempt=attempt)


def _log_failure(what: str, error: Exception, delay: float) -> None:
    """Log what a store failed in: briefly where it says why itself."""
    logger.warning(
        "the store %s: %s; trying again in %.1f s",
        what,
        error,
        delay,
        exc_info=None if isinstance(error, StoreError) else error,
        extra={"retry_in": delay},
    )


_TOLD = {
    DeliveryState.DELIVERED: signals.delivery_delivered,
    DeliveryState.EXHAUSTED: signals.delivery_exhausted,
    DeliveryState.DISCARDED: signals.delivery_discarded,
}
