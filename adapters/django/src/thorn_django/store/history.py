"""History: what has become of deliveries; replaying, purging, counting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    Case,
    Count,
    Exists,
    F,
    FloatField,
    Func,
    IntegerField,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Concat, Substr

from thorn_core import Attempt, Delivery, DeliveryQuery, DeliveryState, Period, Stats
from thorn_core.patterns import matches
from thorn_core.stores import BUSIEST, STEPS, Periods, percentiles
from thorn_django import models
from thorn_django.fields import KeyField
from thorn_django.store import messages, recipients, subscriptions
from thorn_django.store.deliveries import PENDING, SETTLED, asked_for, behind, in_order, rows
from thorn_django.store.rows import ATTEMPT, DELIVERY, attempt_of, delivery_of
from thorn_django.store.statements import chunks

Row = dict[str, Any]


def _attempts(connection: BaseDatabaseWrapper) -> QuerySet[models.Attempt]:
    return models.Attempt._base_manager.using(connection.alias)


# -- look


def delivery(connection: BaseDatabaseWrapper, delivery_id: str) -> Delivery | None:
    """The delivery of that id."""
    row = rows(connection).filter(pk=delivery_id).values(*DELIVERY).first()
    return None if row is None else delivery_of(row)


def deliveries(
    connection: BaseDatabaseWrapper,
    query: DeliveryQuery,
    after: tuple[datetime, str] | None,
    limit: int,
    *,
    newest_first: bool,
) -> list[Delivery]:
    """A page of deliveries, by age."""
    found = _found(connection, query, limit, after, newest_first=newest_first)
    return [delivery_of(row) for row in found]


def _found(
    connection: BaseDatabaseWrapper,
    query: DeliveryQuery,
    limit: int,
    after: tuple[datetime, str] | None = None,
    *,
    newest_first: bool = False,
) -> list[Row]:
    asked = in_order(connection, query, newest_first=newest_first)
    found: list[Row] = []
    while len(found) < limit:
        rest = asked
        if after is not None:
            rest = behind(connection, asked, after, descending=newest_first)
        page = list(rest.values(*DELIVERY)[:limit])
        found += [r for r in page if query.event is None or matches(query.event, r["event"])]
        if len(page) < limit:
            break
        after = page[-1]["created_at"], page[-1]["id"]
    return found[:limit]


def count(connection: BaseDatabaseWrapper, query: DeliveryQuery) -> int:
    """How many deliveries there are."""
    found = asked_for(connection, query)
    if query.event is None:
        return found.count()
    by_event = found.values_list("event").annotate(many=Count("pk")).order_by()
    return sum(many for event, many in by_event if matches(query.event, event))


def attempts(
    connection: BaseDatabaseWrapper, delivery_ids: Sequence[str], after: str | None, limit: int
) -> list[Attempt]:
    """A page of the attempts of these deliveries."""
    found: list[Attempt] = []
    for some in chunks(sorted(set(delivery_ids))):
        page = _attempts(connection).filter(delivery_id__in=some, pk__gt=after or "")
        found += [attempt_of(row) for row in page.order_by("id").values(*ATTEMPT)[:limit]]
    found.sort(key=lambda attempt: attempt.id)
    return found[:limit]


# -- change


def replay(
    connection: BaseDatabaseWrapper, query: DeliveryQuery, now: datetime, limit: int
) -> list[Delivery]:
    """Make settled deliveries pending again."""
    found = _found(connection, query.only_settled(), limit)
    replayed: list[Delivery] = []
    for some in chunks([row["id"] for row in found]):
        rows(connection).filter(pk__in=some, state__in=SETTLED).update(
            state=PENDING,
            attempts_before=F("attempt_count"),
            due_at=now,
            ready_at=now,
            settled_at=None,
            reason=None,
            token=None,
            leased_until=None,
        )
        pending = rows(connection).filter(pk__in=some, state=PENDING)
        replayed += [delivery_of(row) for row in pending.values(*DELIVERY)]
    recipients.due(connection, ((d.recipient, d.due_at) for d in replayed))
    return sorted(replayed, key=lambda delivery: delivery.id)


def purge(connection: BaseDatabaseWrapper, query: DeliveryQuery, limit: int) -> int:
    """Remove settled deliveries with their attempts, and messages left without any."""
    found = _found(connection, query.only_settled(), limit)
    alias = connection.alias
    for some in chunks(found):
        keys = [row["id"] for row in some]
        _attempts(connection).filter(delivery_id__in=keys)._raw_delete(alias)
        rows(connection).filter(pk__in=keys, state__in=SETTLED)._raw_delete(alias)
        _purge_messages(connection, sorted({row["message_id"] for row in some}))
    return len(found)


def purge_unreached(connection: BaseDatabaseWrapper, until: datetime | None, limit: int) -> int:
    """Remove routed messages without deliveries, as of events nobody was subscribed to."""
    found = _unreached(connection).order_by("at", "id")
    if until is not None:
        found = found.filter(at__lt=until)
    ids = list(found.values_list("pk", flat=True)[:limit])
    for some in chunks(ids):
        _purge_messages(connection, some)
    return len(ids)


def _purge_messages(connection: BaseDatabaseWrapper, ids: Sequence[str]) -> None:
    _unreached(connection).filter(pk__in=ids)._raw_delete(connection.alias)


def _unreached(connection: BaseDatabaseWrapper) -> QuerySet[models.Message]:
    # A delivery's id begins with its message's, so that the primary key finds them.
    start = Concat(Value("dlv_"), Substr(OuterRef("id"), 5), output_field=KeyField())
    reached = rows(connection).filter(
        message_id=OuterRef("id"),
        pk__gte=Concat(start, Value("_"), output_field=KeyField()),
        pk__lt=Concat(start, Value(chr(ord("_") + 1)), output_field=KeyField()),
    )
    return messages.rows(connection).filter(~Exists(reached), route_at__isnull=True)


# -- count


def stats(
    connection: BaseDatabaseWrapper,
    now: datetime,
    window: timedelta,
    outboxes: Sequence[tuple[int, datetime | None]],
) -> Stats:
    """What there is, and how attempts went in the time before now.

    Args:
        connection: To the database.
        now: The time.
        window: The time before it.
        outboxes: How many messages other databases have still, and the oldest one's time.
    """
    states = dict.fromkeys(DeliveryState, 0)
    by_state = rows(connection).values_list("state").annotate(many=Count("pk")).order_by()
    for state, many in by_state:
        states[DeliveryState(state)] = many
    waiting = rows(connection).filter(ready_at__lte=now).aggregate(at=Min("ready_at"))["at"]
    number, oldest = unrouted(connection)
    since = [waiting, oldest, *(at for _, at in outboxes)]
    elsewhere = sum(many for many, _ in outboxes)
    lately = _attempts(connection).filter(at__range=(now - window, now))
    made = lately.aggregate(
        made=Count("pk"), well=Count("pk", filter=Q(status__gte=200, status__lt=300))
    )
    answered = lately.filter(status__isnull=False)
    return Stats(
        subscriptions=subscriptions.rows(connection).count(),
        messages=messages.rows(connection).count() + elsewhere,
        unrouted=number + elsewhere,
        deliveries=states,
        due_since=min((at for at in since if at is not None), default=None),
        attempts=made["made"],
        failed=made["made"] - made["well"],
        window=window,
        latency=percentiles(_steps(answered)[None]),
        recipients=_by_recipient(answered),
    )


def unrouted(connection: BaseDatabaseWrapper) -> tuple[int, datetime | None]:
    """How many messages wait to be routed, and since when the oldest does."""
    found = messages.rows(connection).filter(route_at__isnull=False)
    counted = found.aggregate(many=Count("pk"), oldest=Min("at"))
    return counted["many"], counted["oldest"]


def _by_recipient(answered: QuerySet[models.Attempt]) -> dict[str, dict[int, float]]:
    by_number = answered.values_list("recipient").annotate(many=Count("pk"))
    busiest = [name for name, _ in by_number.order_by("-many", "recipient")[:BUSIEST]]
    steps = _steps(answered.filter(recipient__in=busiest), "recipient")
    return {name: percentiles(steps[name]) for name in busiest}


def _steps(answered: QuerySet[models.Attempt], *by: str) -> dict[str | None, dict[float, int]]:
    """How often each latency was there, for all or by a column."""
    counted: dict[str | None, dict[float, int]] = {} if by else {None: {}}
    grouped = answered.annotate(step=_tenths()).values_list(*by, "step").annotate(many=Count("pk"))
    for *group, steps, many in grouped.order_by():
        counted.setdefault(group[0] if group else None, {})[float(steps) / STEPS] = many
    return counted


def _tenths() -> Func:
    """How long an attempt took, in tenths of a millisecond."""
    whole: FloatField[float, float] = FloatField()
    return Func(F("duration") * STEPS, function="ROUND", output_field=whole)


def periods(connection: BaseDatabaseWrapper, asked: Periods) -> list[Period]:
    """How deliveries to one subscription went, period by period."""
    mine = rows(connection).filter(
        subscription_id=asked.subscription_id,
        created_at__gte=asked.since,
        created_at__lt=asked.until,
    )
    newest = mine.order_by("-created_at").values_list("created_at", flat=True)
    oldest = newest[asked.limit - 1 : asked.limit].first()
    looked_at = mine if oldest is None else mine.filter(created_at__gte=oldest)
    counts = (
        looked_at.annotate(nth=_number(asked, "created_at"))
        .values_list("nth", "state")
        .annotate(many=Count("pk"))
        .order_by()
    )
    latencies = (
        _attempts(connection)
        # Without a range of `at`: by that index, a database may go through them all each time.
        .filter(delivery_id__in=looked_at.values("pk"), status__isnull=False)
        .annotate(nth=_number(asked, "at"), tenths=_tenths())
        .values_list("nth", "tenths")
        .annotate(many=Count("pk"))
        .order_by()
    )
    return asked.made(counts, latencies)


def _number(asked: Periods, column: str) -> Case:
    """Which of the periods a time is in; -1 is before them, and null behind them."""
    ends = (asked.since + (n + 1) * asked.step for n in range(-1, asked.number))
    whens = (When(**{f"{column}__lt": end}, then=Value(n)) for n, end in enumerate(ends, -1))
    whole: IntegerField[int, int] = IntegerField()
    return Case(*whens, output_field=whole)
