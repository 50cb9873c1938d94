"""Leases: deliveries that workers have claimed, and how they end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Min, QuerySet

from thorn_core import Claim, DeliveryState, Settlement, Subscription
from thorn_core.stores import queue_up, take_turns
from thorn_core.stores.rules import pauses
from thorn_django.fields import EPOCH, micros
from thorn_django.models import Attempt
from thorn_django.store import messages, recipients, statements, subscriptions
from thorn_django.store.deliveries import IN_FLIGHT, PENDING, delivery_range, rows
from thorn_django.store.messages import Messages
from thorn_django.store.rows import DELIVERY, attempt_row, clean, delivery_of
from thorn_django.store.statements import chunks, first_keys, insert_new

# Leases taken back by one claim.
TAKEN_BACK = 1000
FREE = {"state": PENDING, "ready_at": F("due_at"), "token": None, "leased_until": None}


def claim(
    connection: BaseDatabaseWrapper,
    outbox: Messages,
    *,
    now: datetime,
    lease: timedelta,
    limit: int,
    token: str,
    per_recipient: int,
    busy: Mapping[str, int],
    message_ids: Collection[str] | None,
) -> list[Claim]:
    """Lease what is due, recipients taking turns."""
    _take_back_expired(connection, now)
    full = [recipient for recipient, count in busy.items() if count >= per_recipient]
    if limit <= 0:
        return []
    if message_ids is None:
        turns = recipients.ready(connection, now, limit, full)
        room = {name: min(per_recipient - busy.get(name, 0), limit) for name in turns}
        queues = _queues(connection, room, now, limit)
    else:
        turns = []
        keys = list(dict.fromkeys(message_ids))
        queues = _queues_of(connection, keys, now, limit, per_recipient, busy, full)
    chosen = take_turns(queues, limit)
    claims = _take(connection, outbox, chosen, token, now + lease)
    if turns:
        recipients.served(connection, turns, now)
    return claims


def _take_back_expired(connection: BaseDatabaseWrapper, now: datetime) -> None:
    expired = rows(connection).filter(leased_until__lte=now).order_by("leased_until", "id")
    names: list[str] = []
    for some in chunks(sorted(first_keys(connection, expired, TAKEN_BACK))):
        found = rows(connection).filter(pk__in=some, state=IN_FLIGHT)
        names += found.values_list("recipient", flat=True)
        found.update(**FREE)
    recipients.due(connection, ((name, now) for name in names))


def _queues(
    connection: BaseDatabaseWrapper, room: Mapping[str, int], now: datetime, limit: int
) -> list[list[str]]:
    """The first due deliveries of each recipient, the oldest first."""
    if not room:
        return []
    # Enough to fill the claim even if most of them have nothing due.
    share = max(4 * limit // len(room), 1)
    sizes = {name: min(size, share) for name, size in room.items()}
    found: dict[str, list[str]] = {name: [] for name in room}
    for key, recipient in statements.first_due(connection, sizes, micros(now)):
        found[recipient].append(key)
    return list(found.values())


def _queues_of(
    connection: BaseDatabaseWrapper,
    message_ids: Sequence[str],
    now: datetime,
    limit: int,
    per_recipient: int,
    busy: Mapping[str, int],
    full: Sequence[str],
) -> list[list[str]]:
    """The due deliveries of some messages, by recipient."""
    due: list[tuple[str, str]] = []
    for some in chunks(message_ids, 50):
        ranges = [(key, *delivery_range(key)) for key in some]
        due += statements.due_of_messages(
            connection, ranges, micros(now), full=full, most=4 * limit
        )
    return queue_up(due, per_recipient=per_recipient, busy=busy)


def _take(
    connection: BaseDatabaseWrapper,
    outbox: Messages,
    chosen: Sequence[str],
    token: str,
    until: datetime,
) -> list[Claim]:
    """Lease these, as far as nobody else has meanwhile."""
    found: dict[str, Any] = {}
    for keys in chunks(sorted(chosen)):
        rows(connection).filter(pk__in=keys, ready_at__isnull=False).update(
            state=IN_FLIGHT, ready_at=None, token=token, leased_until=until
        )
        leased = rows(connection).filter(pk__in=keys, state=IN_FLIGHT, token=token)
        found.update((row["id"], row) for row in leased.values(*DELIVERY))
    deliveries = [delivery_of(found[key]) for key in chosen if key in found]
    of = outbox.of(connection, deliveries)
    known = subscriptions.get_many(
        connection, list({d.subscription_id for d in deliveries if d.target is None})
    )
    return [
        Claim(
            delivery=delivery,
            message=of[delivery.message_id],
            subscription=delivery.target or known.get(delivery.subscription_id),
            token=token,
        )
        for delivery in deliveries
        if delivery.message_id in of
    ]


def next_due(connection: BaseDatabaseWrapper, now: datetime) -> datetime | None:
    """When there may next be something that can't be claimed now."""
    times = (
        rows(connection).aggregate(at=Min("leased_until")),
        recipients.rows(connection).aggregate(at=Min("ready_at")),
        messages.rows(connection).filter(route_at__gt=EPOCH).aggregate(at=Min("route_at")),
    )
    found = [time["at"] for time in times]
    return min((max(time, now) for time in found if time is not None), default=None)


# -- keep, give back


def _held(connection: BaseDatabaseWrapper, claims: Sequence[Claim]) -> Iterator[QuerySet[Any]]:
    """The rows of claims that are still held."""
    by_token: dict[str, list[str]] = {}
    for held in claims:
        by_token.setdefault(held.token, []).append(held.delivery.id)
    for token, ids in by_token.items():
        for keys in chunks(sorted(ids)):
            yield rows(connection).filter(pk__in=keys, state=IN_FLIGHT, token=token)


def renew(connection: BaseDatabaseWrapper, claims: Sequence[Claim], until: datetime) -> None:
    """Make leases last until then."""
    for held in _held(connection, claims):
        held.update(leased_until=until)


def release(connection: BaseDatabaseWrapper, claims: Sequence[Claim]) -> None:
    """Give leases back unused."""
    for held in _held(connection, claims):
        held.update(**FREE)
    recipients.due(connection, ((c.delivery.recipient, c.delivery.due_at) for c in claims))


# -- settle


def settle(
    connection: BaseDatabaseWrapper, settlements: Sequence[Settlement]
) -> list[Subscription]:
    """Write how claims ended; gives back the subscriptions that this disabled."""
    ordered = sorted(settlements, key=lambda settlement: settlement.claim.delivery.id)
    standing: dict[str, tuple[str, str | None]] = {}
    for some in chunks([settlement.claim.delivery.id for settlement in ordered]):
        found = rows(connection).filter(pk__in=some).order_by("pk").select_for_update()
        for key, state, token in found.values_list("id", "state", "token"):
            standing[key] = (state, token)
    held: list[Settlement] = []
    late: list[Settlement] = []
    for settlement in ordered:
        stands = standing.get(settlement.claim.delivery.id)
        if stands is not None:
            mine = stands == (IN_FLIGHT, settlement.claim.token)
            (held if mine else late).append(settlement)
    statements.settle(connection, [_settled(settlement) for settlement in held])
    attempts = [s for s in held if s.attempt is not None]
    if late:
        attempts += _count_late(connection, late)
    _record(connection, attempts)
    recipients.due(
        connection,
        (
            (s.claim.delivery.recipient, s.outcome.due_at or s.at)
            for s in held
            if s.outcome.state is DeliveryState.PENDING
        ),
    )
    recipients.pause(
        connection,
        pauses(held),
    )
    return subscriptions.judge(connection, held)


def _count_late(
    connection: BaseDatabaseWrapper, settlements: Sequence[Settlement]
) -> list[Settlement]:
    """Count the attempts of those whose lease was over; gives back those not counted before.

    A settlement comes twice if it wasn't clear whether the first time was written.
    """
    made = {s.attempt.id: s for s in settlements if s.attempt is not None}
    attempts = Attempt._base_manager.using(connection.alias)
    for some in chunks(list(made)):
        for known in attempts.filter(pk__in=some).values_list("pk", flat=True):
            del made[known]
    for some in chunks(sorted(s.claim.delivery.id for s in made.values())):
        rows(connection).filter(pk__in=some).update(attempt_count=F("attempt_count") + 1)
    return list(made.values())


def _record(connection: BaseDatabaseWrapper, settlements: Sequence[Settlement]) -> None:
    """Insert the attempts."""
    made = [
        attempt_row(s.attempt, s.claim.delivery.recipient)
        for s in settlements
        if s.attempt is not None
    ]
    insert_new(connection, Attempt, sorted(made, key=itemgetter("id")))


def _settled(settlement: Settlement) -> dict[str, Any]:
    outcome, at = settlement.outcome, micros(settlement.at)
    pending = outcome.state is DeliveryState.PENDING
    due = micros(outcome.due_at) if outcome.due_at is not None else at
    return {
        "key": settlement.claim.delivery.id,
        "more": int(settlement.attempt is not None),
        "becomes": outcome.state.value,
        "due": due if pending else None,
        "settled": None if pending else at,
        "why": clean(outcome.reason),
    }
