"""Draining: attempts all due deliveries, or those of some messages, once each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from datetime import datetime
from time import monotonic

from thorn_core.worker.engine import Engine
from thorn_core.worker.load import SLOW_SECONDS


async def drain(
    engine: Engine,
    cutoff: datetime,
    message_ids: Collection[str] | None = None,
    *,
    at_once: bool = False,
) -> int:
    """Route and attempt due deliveries of all messages or of some, each delivery once.

    Args:
        engine: The engine to use.
        cutoff: Attempt only deliveries due at this time.
        message_ids: Restricts the drain to these messages.
        at_once: Ignore the limits per recipient for these messages.

    Returns:
        The number of deliveries attempted.
    """
    engine.routable = True
    mine: set[str] = set()
    wanted = None
    if message_ids is not None:
        wanted = await engine.route_named(message_ids, cutoff, mine, at_once=at_once)
    while not engine.stopping:
        progress = engine.progress
        if len(mine) == wanted:
            # The store has no more due deliveries, so don't query it.
            if not engine.leases.has_any(mine):
                break
            await progress.wait()
            continue
        if message_ids is None:
            worked = await engine.pump(cutoff, mine)
        else:
            worked = await engine.claim_some(cutoff, message_ids, mine, at_once=at_once)
        # Requests that end during the query make room for claims it left out.
        if worked or progress.is_set():
            continue
        if not engine.leases.has_any(mine) and not await _crowded(engine, cutoff, message_ids):
            break
        await progress.wait()
    return len(mine)


async def _crowded(engine: Engine, cutoff: datetime, message_ids: Collection[str] | None) -> bool:
    """Return True if some of these deliveries only wait for other requests to end."""
    if not engine.leases:
        return False
    if message_ids is None or engine.full:
        return True
    return await engine.any_due(cutoff, message_ids, engine.load.crowded())


async def begin(
    engine: Engine, cutoff: datetime, message_ids: Collection[str], seconds: float
) -> bool:
    """Route messages and start their due requests; the requests then continue.

    It waits for capacity while the number of requests in flight is at its limit, in total or per
    recipient. It leaves deliveries to an unresponsive recipient in the store.

    Args:
        engine: The engine to use.
        cutoff: Attempt only deliveries due at this time.
        message_ids: The messages' ids.
        seconds: Maximum duration, without calls of the store.

    Returns:
        False if time ran out before all requests were started.
    """
    until = monotonic() + seconds
    begun: set[str] = set()
    wanted = await engine.route_named(message_ids, cutoff, begun)
    while not engine.stopping:
        if len(begun) == wanted:
            return True
        progress = engine.progress
        # The full recipients at the time of the claim; there may be room again now.
        full, crowded = engine.full, engine.load.crowded() - engine.load.stuck()
        if not await engine.claim_some(cutoff, message_ids, begun):
            if not (full or await engine.any_due(cutoff, message_ids, crowded)):
                return True
            # Recipients can become slow although no request has ended.
            patience = min(until - monotonic(), SLOW_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(progress.wait(), max(patience, 0))
        if monotonic() >= until:
            return False
    return False
