"""Recipients: whose turn it is.

A recipient's row says from when on there may be something to claim for it: never later than there
is. So a claim looks at the recipients that are ready, those that have waited longest first, and
not at the backlog of those that aren't. Whoever adds something due moves the time forward in the
same transaction; the row's lock orders that against a claim that is about to move it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, F, OuterRef, QuerySet, Subquery, Value, When

from thorn_django.fields import MomentField, micros
from thorn_django.models import Delivery, Recipient
from thorn_django.store.statements import chunks, first_keys, leave_alone, make_due

# Recipients looked at by one claim.
MOST = 64


def rows(connection: BaseDatabaseWrapper) -> QuerySet[Recipient]:
    """The rows of a database."""
    return Recipient._base_manager.using(connection.alias)


def due(connection: BaseDatabaseWrapper, times: Iterable[tuple[str, datetime]]) -> None:
    """Something is due for recipients at these times.

    Args:
        connection: In the transaction that makes it due.
        times: Recipients and times.
    """
    soonest: dict[str, datetime] = {}
    for recipient, at in times:
        soonest[recipient] = min(at, soonest.get(recipient, at))
    if soonest:
        # In one order everywhere, so that no two transactions wait for each other.
        make_due(connection, [(name, micros(soonest[name])) for name in sorted(soonest)])


def pause(connection: BaseDatabaseWrapper, ends: Iterable[tuple[str, datetime]]) -> None:
    """Leave recipients alone until these times, or later ones that were said before."""
    latest: dict[str, datetime] = {}
    for recipient, at in ends:
        latest[recipient] = max(at, latest.get(recipient, at))
    if latest:
        leave_alone(connection, [(name, micros(latest[name])) for name in sorted(latest)])


def ready(
    connection: BaseDatabaseWrapper, now: datetime, limit: int, full: Sequence[str]
) -> list[str]:
    """Lock those whose turn it is, the longest waiting first.

    Args:
        connection: In the transaction that is to claim.
        now: The time.
        limit: How many at most.
        full: Those that may get no more.
    """
    waiting = rows(connection).filter(ready_at__lte=now).order_by("ready_at", "recipient")
    if full:
        waiting = waiting.exclude(recipient__in=full)
    found = first_keys(connection, waiting, min(limit, MOST))
    if not found and connection.features.has_select_for_update:
        # Others have locked what there is, for a moment: wait for one instead of going away.
        found = list(waiting.values_list("recipient", flat=True).select_for_update()[:1])
    return found


def served(connection: BaseDatabaseWrapper, recipients: Sequence[str], now: datetime) -> None:
    """Put recipients behind the others, until there is something for them again."""
    at = Value(now, output_field=MomentField())
    # With more to claim, behind those that have waited longer.
    following = (
        Delivery._base_manager.using(connection.alias)
        .filter(recipient=OuterRef("recipient"), ready_at__isnull=False)
        .order_by("ready_at")
        .values_list(Case(When(ready_at__gt=at, then=F("ready_at")), default=at))
    )
    for some in chunks(recipients):
        rows(connection).filter(pk__in=some).update(ready_at=Subquery(following[:1]))
