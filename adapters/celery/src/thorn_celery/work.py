"""The work of the tasks: draining messages, and finding due work."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from datetime import timedelta

import attrs

from thorn_celery.dispatcher import CeleryDispatcher, dispatcher_of
from thorn_celery.options import Route
from thorn_core import Claim, Delivery, Message, Thorn

logger = logging.getLogger(__name__)

# Maximum duration of a task in seconds.
TASK_SECONDS = 5.0
# Maximum number of chunks per query.
PAGES = 10
# Lease of deliveries that are only inspected, in case the process dies.
LOOK_LEASE = timedelta(seconds=10)
# Seconds between the queries of a sweep.
LOOK_SECONDS = 0.5


def deliver(app: Thorn, message_ids: Sequence[str], *, again: bool = False) -> None:
    """Route messages and start their due requests, for a limited time.

    The engine continues the requests, and a task waits only if the engine is at capacity, so a
    recipient that hangs doesn't block the next task.

    Args:
        app: The app.
        message_ids: Their ids.
        again: There are other tasks for these messages, so enqueue at most one more.
    """
    if not app.submit(app.engine.abegin(message_ids, TASK_SECONDS)).result():
        _recruit(app, message_ids, again=again)


def _recruit(app: Thorn, message_ids: Sequence[str], *, again: bool) -> None:
    """Enqueue more tasks for messages that would keep one worker busy too long.

    Fewer deliveries than a chunk don't need another task; the sweep finds them.
    """
    size = app.settings.chunksize
    left = due(app, limit=size if again else PAGES * size, message_ids=message_ids)
    dispatcher = dispatcher_of(app)
    if len(left) >= size and dispatcher is not None:
        _tell(dispatcher, left)


def sweep(app: Thorn) -> int:
    """Enqueue tasks for due work that no worker seems to handle.

    These are messages whose task was lost, retries, and deliveries whose recipient was paused or
    whose worker died. If there is more work, a thread continues for at most an interval, so that
    the worker is free for the enqueued tasks.

    Args:
        app: The app.

    Returns:
        The number of messages and deliveries in the first query.
    """
    dispatcher = dispatcher_of(app)
    if dispatcher is None:
        return 0
    told: set[str] = set()
    if _look_and_tell(app, dispatcher, told):
        arguments = (app, dispatcher, frozenset(told))
        threading.Thread(target=_look_on, args=arguments, name="thorn-sweep", daemon=True).start()
    return len(told)


def _look_on(app: Thorn, dispatcher: CeleryDispatcher, before: Collection[str]) -> None:
    """Repeat the query until there is no more due work, or the next sweep is due."""
    if not dispatcher.sweeping.acquire(blocking=False):
        return
    try:
        told = set(before)
        until = time.monotonic() + dispatcher.options.sweep_interval - LOOK_SECONDS
        while time.monotonic() < until and not dispatcher.closing.wait(LOOK_SECONDS):
            if not _look_and_tell(app, dispatcher, told):
                break
    except Exception:
        logger.exception("the sweep ended early; the next one will continue")
    finally:
        dispatcher.sweeping.release()


def _look_and_tell(app: Thorn, dispatcher: CeleryDispatcher, told: set[str]) -> bool:
    """Query once, and enqueue tasks for new ids; add them to `told`; return False for none."""
    interval = dispatcher.options.sweep_interval
    messages, claims = _look(app, timedelta(seconds=interval), told)
    for message in messages:
        route = dispatcher.options.route_of(message.event)
        dispatcher.tell(attrs.evolve(route, expires=interval), [message.id])
    _tell(dispatcher, claims)
    told.update(message.id for message in messages)
    told.update(claim.delivery.id for claim in claims)
    return bool(messages or claims)


def _look(
    app: Thorn, interval: timedelta, told: Collection[str]
) -> tuple[list[Message], list[Claim]]:
    """Return unrouted messages and due deliveries, without those already enqueued.

    Work younger than an interval is in progress, or waits for its task.
    """
    now, limit = app.clock(), PAGES * app.settings.chunksize
    waiting = app.store.claim_messages(now=now, lease=timedelta(), limit=limit)
    messages = [m for m in waiting if m.at <= now - interval and m.id not in told]
    claims = [
        claim
        for claim in due(app, limit=limit)
        if claim.delivery.id not in told
        and (_tried(claim.delivery) or claim.delivery.due_at <= now - interval)
    ]
    return messages, claims


def _tell(dispatcher: CeleryDispatcher, claims: Sequence[Claim]) -> None:
    """Enqueue a task for each chunk of deliveries, with few recipients per chunk."""
    options = dispatcher.options
    slow = {claim.delivery.subscription_id for claim in claims if _tried(claim.delivery)}
    by_route: dict[Route, list[str]] = {}
    for claim in sorted(claims, key=lambda claim: claim.delivery.subscription_id):
        route = options.route_of(claim.delivery.event)
        if options.retry_queue is not None and claim.delivery.subscription_id in slow:
            route = Route(queue=options.retry_queue, priority=route.priority)
        route = attrs.evolve(route, expires=options.sweep_interval, again=True)
        by_route.setdefault(route, []).append(claim.delivery.message_id)
    for route, message_ids in by_route.items():
        dispatcher.tell(route, message_ids)


def _tried(delivery: Delivery) -> bool:
    return delivery.attempt_count > delivery.attempts_before


def due(app: Thorn, *, limit: int, message_ids: Collection[str] | None = None) -> Sequence[Claim]:
    """Return the deliveries that could be claimed now, at most a chunk per recipient.

    Args:
        app: The app.
        limit: Maximum number.
        message_ids: Only deliveries of these messages.
    """
    store = app.store
    claims = store.claim(
        now=app.clock(),
        lease=LOOK_LEASE,
        limit=limit,
        token=f"look.{os.urandom(8).hex()}",
        per_recipient=app.settings.chunksize,
        busy={},
        message_ids=message_ids,
    )
    if claims:
        store.release(claims)
    return claims


def purge(app: Thorn, age: timedelta | None) -> int:
    """Delete finished deliveries from an age on.

    Args:
        app: The app.
        age: The minimum age; None deletes nothing.

    Returns:
        The number of deleted deliveries.
    """
    return 0 if age is None else app.purge(until=app.clock() - age)
