"""Draining: what is due now, of everybody or of some messages, each delivery once."""

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
    """Route and deliver what is due, of all messages or of these, each delivery once.

    Args:
        engine: Does it.
        cutoff: What is due at this time.
        message_ids: Only these.
        at_once: Let the limits per recipient not hold these messages up.

    Returns:
        How many were tried.
    """
    engine.routable = True
    mine: set[str] = set()
    wanted = None
    if message_ids is not None:
        wanted = await engine.route_named(message_ids, cutoff)
    while not engine.stopping:
        progress = engine.progress
        if len(mine) == wanted:
            # The store has no more of these: it needn't be asked.
            if not engine.leases.has_any(mine):
                break
            await progress.wait()
            continue
        if message_ids is None:
            worked = await engine.pump(cutoff, mine)
        else:
            worked = await engine.claim_some(cutoff, message_ids, mine, at_once=at_once)
        # What ends while the store is asked makes room for what it didn't give.
        if worked or progress.is_set():
            continue
        if not engine.leases.has_any(mine) and not await _crowded(engine, cutoff, message_ids):
            break
        await progress.wait()
    return len(mine)


async def _crowded(engine: Engine, cutoff: datetime, message_ids: Collection[str] | None) -> bool:
    """True if some of these deliveries only wait for others' requests to end."""
    if not engine.leases:
        return False
    if message_ids is None or engine.full:
        return True
    return await engine.any_due(cutoff, message_ids, engine.load.crowded())


async def begin(
    engine: Engine, cutoff: datetime, message_ids: Collection[str], seconds: float
) -> bool:
    """Route messages and begin requests of what of them is due; those then go on.

    It waits for room: while as many requests are under way as may be, in all or to a recipient.
    What is to go to one that answers none of them is left to the store.

    Args:
        engine: Does it.
        cutoff: What is due at this time.
        message_ids: Which.
        seconds: How long at most, calls of the store not counted.

    Returns:
        False if time was up before all was begun.
    """
    until = monotonic() + seconds
    wanted = await engine.route_named(message_ids, cutoff)
    begun: set[str] = set()
    while not engine.stopping:
        if len(begun) == wanted:
            return True
        progress = engine.progress
        # As the claim sees it: meanwhile, there may be room again.
        full, crowded = engine.full, engine.load.crowded() - engine.load.stuck()
        if not await engine.claim_some(cutoff, message_ids, begun):
            if not (full or await engine.any_due(cutoff, message_ids, crowded)):
                return True
            # Recipients become slow without anything having ended.
            patience = min(until - monotonic(), SLOW_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(progress.wait(), max(patience, 0))
        if monotonic() >= until:
            return False
    return False
