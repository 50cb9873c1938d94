"""The recorder: writes the outcomes of claims in batches, and notifies listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import attrs

from thorn_core import signals
from thorn_core.delivery import disabled_message, failing_message
from thorn_core.errors import StoreDataError, StoreError
from thorn_core.ports.store import Lease
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.values import Claim, Completion, DeliveryState, Message, Subscription
from thorn_core.worker.lane import Lane, routings_of
from thorn_core.worker.leases import Leases
from thorn_core.worker.load import Load
from thorn_core.worker.logs import about, log_completion, log_disabled, log_failing
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)

# Seconds between attempts to write to a failing store: the first and the longest.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
# Limits of one write: completions, and bytes of their responses.
BATCH = 500
BATCH_BYTES = 1024 * 1024
# Minimum seconds between the starts of two writes while requests are in flight.
PACE = 0.02
NOT_STORED = "the error's text could not be stored"


class Recorder:
    """Writes the completions of one worker, and notifies callbacks, plugins and signals.

    Args:
        wiring: The app's wiring.
        io: Awaits a store function that may block.
        load: The worker's load.
        lane: The direct deliveries; the recorder also writes rows for the overdue ones, so that
            nothing else writes rows of deliveries in the lane.
        leases: Takes the deliveries that get a lease of their own.
        recorded: Called with the claims that have ended, or wait in the store again.
        deliver: Delivers the messages with these ids, perhaps unknown to other processes.
    """

    def __init__(
        self,
        wiring: Wiring,
        io: Callable[..., Awaitable[Any]],
        *,
        load: Load,
        lane: Lane,
        leases: Leases,
        recorded: Callable[[Sequence[Claim]], None],
        deliver: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        self._wiring, self._io = wiring, io
        self._load, self._lane, self._leases = load, lane, leases
        # The start of the last write, by `time.monotonic`.
        self._wrote_at = -PACE
        self._full = asyncio.Event()
        self._recorded, self._deliver = recorded, deliver
        self._overdue = False
        self._waiting: list[Completion] = []
        self._writer: asyncio.Task[None] | None = None
        self._notices: set[asyncio.Task[object]] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, completion: Completion) -> None:
        """Queue a completion."""
        self._waiting.append(completion)
        if self._enough():
            self._full.set()
        self._start()

    def sweep(self) -> None:
        """Write rows for overdue direct deliveries."""
        self._overdue = True
        self._start()

    def _start(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write queued completions and unfinished direct deliveries, unless the store fails."""
        self._closing = True
        self._full.set()
        if self._writer is not None:
            await self._writer
        unfinished = self._lane.unfinished()
        try:
            await self._store_direct(unfinished)
        except Exception:
            logger.exception(
                "the store failed; the messages of %d deliveries wait for their leases to expire",
                len(unfinished),
            )
        for notice in self._notices:
            notice.cancel()
        self._waiting.clear()

    async def _write(self) -> None:
        """Write the queued completions in batches until none is left."""
        delay = FIRST_DELAY
        while self._waiting or self._overdue:
            try:
                if self._overdue:
                    self._overdue = False
                    await self._store_overdue()
                await self._gather()
                await self._record(self._batch())
            except Exception as error:
                log_store_failure("can't record", error, delay)
                if self._closing:
                    break
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            delay = FIRST_DELAY
        self._writer = None

    async def _record(self, batch: Sequence[Completion]) -> None:
        """Write the first completions of the queue; a value that can't be stored delays no other.

        Raises:
            Exception: The store failed.
        """
        if not batch:
            return
        routed = self._lane.routed_by(completion.claim for completion in batch)
        notable: Sequence[Subscription] = ()
        try:
            notable = await self._io(self._wiring.store.record, batch, routed=routed)
        except StoreDataError as error:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._record(batch[:half])
                await self._record(batch[half:])
                return
            notable = await self._record_without_response(batch[0], routed, error)
        del self._waiting[: len(batch)]
        claims = [completion.claim for completion in batch]
        self._lane.stored(claims)
        for completion in batch:
            self._notify(completion)
        if notable:
            await self._announce(notable, batch[-1].at)
        self._wiring.progressed()
        self._recorded(claims)

    async def _record_without_response(
        self, completion: Completion, routed: Collection[str], error: StoreDataError
    ) -> Sequence[Subscription]:
        """Write a completion whose response can't be stored; if that fails, drop it."""
        delivery, attempt = completion.claim.delivery, completion.attempt
        extra = about(delivery, completion.claim.subscription)
        if attempt is not None:
            bare = attrs.evolve(attempt, headers={}, body=b"", error=attempt.error and NOT_STORED)
            try:
                completion = attrs.evolve(completion, attempt=bare)
                notable: Sequence[Subscription] = await self._io(
                    self._wiring.store.record, [completion], routed=routed
                )
            except StoreDataError as again:
                error = again
            else:
                logger.warning(
                    "the response to delivery %s can't be stored and is left out: %s",
                    delivery.id,
                    error,
                    extra=extra,
                )
                return notable
        logger.error(
            "the result of delivery %s can't be stored, so it will be attempted again: %s",
            delivery.id,
            error,
            extra=extra,
        )
        self._lane.forget(completion.claim)
        return ()

    async def _gather(self) -> None:
        """Wait for a larger batch if many requests end: a write of one row costs as much as ten."""
        left = self._wrote_at + PACE - monotonic()
        if left > 0 and not self._enough():
            self._full.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), left)
        self._wrote_at = monotonic()

    def _enough(self) -> bool:
        return len(self._waiting) >= BATCH or not self._load.in_flight or self._closing

    def _batch(self) -> list[Completion]:
        """Return the next completions to write, limited by number and by bytes."""
        batch: list[Completion] = []
        size = 0
        for completion in self._waiting[:BATCH]:
            attempt = completion.attempt
            size += 0 if attempt is None else len(attempt.body)
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._lane.current(completion))
        return batch

    async def _store_overdue(self) -> None:
        """Write rows for direct deliveries that still wait or are still in flight."""
        pending, leased = self._lane.overdue()
        await self._store_direct(pending)
        by_token: dict[str, list[Claim]] = {}
        for claim in leased:
            by_token.setdefault(claim.token, []).append(claim)
        for token, claims in by_token.items():
            until = self._wiring.clock() + timedelta(seconds=self._wiring.settings.lease)
            await self._store_direct(claims, (token, until))
            self._leases.add([attrs.evolve(claim, direct=False) for claim in claims], token, until)
        self._recorded(pending)

    async def _store_direct(self, claims: Sequence[Claim], leased: Lease | None = None) -> None:
        """Write rows for direct deliveries: pending, or leased."""
        if claims:
            routed = self._lane.routed_by(claims)
            state = DeliveryState.PENDING if leased is None else DeliveryState.IN_FLIGHT
            routings = routings_of(claims, routed, state)
            await self._io(self._wiring.store.route, routings, leased=leased)
            self._lane.stored(claims)

    async def _announce(self, subscriptions: Sequence[Subscription], at: datetime) -> None:
        """Notify the owners of disabled or failing subscriptions."""
        messages = [self._announced(subscription, at) for subscription in subscriptions]
        try:
            await self._io(self._wiring.store.publish, messages, within=IMMEDIATE)
        except Exception:
            logger.exception("the owners of %d subscriptions can't be notified", len(messages))
            return
        # Possibly nothing else delivers them: with `inline`, each send delivers only its own
        # messages.
        notice = asyncio.ensure_future(self._deliver([message.id for message in messages]))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    def _announced(self, subscription: Subscription, at: datetime) -> Message:
        if not subscription.enabled:
            log_disabled(subscription)
            signals.tell(signals.subscription_disabled, self._wiring.app, subscription=subscription)
            return disabled_message(subscription, at)
        limit = timedelta(seconds=self._wiring.settings.disable_after or 0)
        disabled_at = (subscription.failing_since or at) + limit
        log_failing(subscription, disabled_at)
        return failing_message(subscription, disabled_at, at)

    def _notify(self, completion: Completion) -> None:
        wiring = self._wiring
        delivery, attempt = completion.claim.delivery, completion.attempt
        log_completion(completion)
        if attempt is not None:
            wiring.attempted(attempt, delivery)
            wiring.plugins.attempted(attempt, delivery)
            signals.tell(signals.attempt_made, wiring.app, attempt=attempt, delivery=delivery)
        ended_by = _ENDED_BY.get(completion.outcome.state)
        if ended_by is not None and ended_by.receivers:
            ended = attrs.evolve(
                delivery,
                state=completion.outcome.state,
                reason=completion.outcome.reason,
                finished_at=completion.at,
                attempt_count=delivery.attempt_count + (attempt is not None),
            )
            signals.tell(ended_by, wiring.app, delivery=ended, attempt=attempt)


def log_store_failure(what: str, error: Exception, delay: float) -> None:
    """Log why a store failed, with a traceback unless the error explains itself."""
    logger.warning(
        "the store %s: %s; trying again in %.1f s",
        what,
        error,
        delay,
        exc_info=None if isinstance(error, StoreError) else error,
        extra={"retry_in": delay},
    )


_ENDED_BY = {
    DeliveryState.DELIVERED: signals.delivery_delivered,
    DeliveryState.FAILED: signals.delivery_failed,
    DeliveryState.CANCELLED: signals.delivery_cancelled,
}
