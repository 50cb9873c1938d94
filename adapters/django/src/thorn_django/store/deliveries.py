"""Deliveries: how they are found."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Func, Q, QuerySet, Value

from thorn_core import DeliveryQuery, DeliveryState
from thorn_django import models
from thorn_django.fields import MomentField

PENDING, IN_FLIGHT = DeliveryState.PENDING.value, DeliveryState.IN_FLIGHT.value
SETTLED = tuple(state.value for state in DeliveryState if state.settled)


def delivery_range(message_id: str) -> tuple[str, str]:
    """Where the ids of a message's deliveries are: the first text, and the first one beyond."""
    start = f"dlv_{message_id.removeprefix('msg_')}"
    return start, start + "g"


def rows(connection: BaseDatabaseWrapper) -> QuerySet[models.Delivery]:
    """The rows of a database."""
    return models.Delivery._base_manager.using(connection.alias)


def of_messages(ids: Iterable[str]) -> Q:
    """The deliveries of messages."""
    found = Q(pk__in=())
    for message_id in ids:
        start, end = delivery_range(message_id)
        found |= Q(pk__gte=start, pk__lt=end, message_id=message_id)
    return found


def behind(
    connection: BaseDatabaseWrapper,
    found: QuerySet[Any, Any],
    place: tuple[datetime, str],
    *,
    descending: bool,
) -> QuerySet[Any, Any]:
    """Those behind a place in the order of age; the other way round, those before it."""
    at, key = place
    compare = "lt" if descending else "gt"
    if connection.vendor == "mysql":
        # Of tuples it doesn't see that the index leads there.
        later = Q(**{f"created_at__{compare}": at})
        return found.filter(later | Q(created_at=at, **{f"id__{compare}": key}))
    values = (Value(at, output_field=MomentField()), Value(key))
    return found.filter(_Beyond(F("created_at"), F("id"), *values, descending=descending))


class _Beyond(Func):
    """A comparison of pairs: the first two values with the last two."""

    output_field = BooleanField()

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: BaseDatabaseWrapper, **_: Any
    ) -> Any:
        parts = [compiler.compile(expression) for expression in self.get_source_expressions()]
        first, second, one, two = (sql for sql, _ in parts)
        compare = "<" if self.extra["descending"] else ">"
        parameters = [value for _, values in parts for value in values]
        return f"({first}, {second}) {compare} ({one}, {two})", parameters


def in_order(
    connection: BaseDatabaseWrapper, query: DeliveryQuery, *, newest_first: bool
) -> QuerySet[models.Delivery, Any]:
    """Those that are `asked_for`, by age."""
    keys = ["created_at", "id"]
    if query.subscription_id is not None and connection.vendor == "mysql":
        keys = ["subscription_id", *keys]
    order = (f"-{key}" for key in keys) if newest_first else keys
    return asked_for(connection, query).order_by(*order)


def asked_for(
    connection: BaseDatabaseWrapper, query: DeliveryQuery
) -> QuerySet[models.Delivery, Any]:
    """Those of a query, and more: of its event's pattern, only the beginning is looked at."""
    found = rows(connection)
    if query.ids is not None:
        found = found.filter(pk__in=query.ids)
    if query.message_id is not None:
        found = found.filter(of_messages([query.message_id]))
    if query.subscription_id is not None:
        found = _of_subscription(connection, found, query.subscription_id)
    if query.event is not None:
        found = found.filter(event__startswith=query.event.partition("*")[0])
    if query.states is not None:
        found = found.filter(state__in=[state.value for state in query.states])
    if query.since is not None:
        found = found.filter(created_at__gte=query.since)
    if query.until is not None:
        found = found.filter(created_at__lt=query.until)
    return found


def _of_subscription(
    connection: BaseDatabaseWrapper, found: QuerySet[models.Delivery, Any], subscription_id: str
) -> QuerySet[models.Delivery, Any]:
    if connection.vendor != "mysql":
        return found.filter(subscription_id=subscription_id)
    # Told that it equals one, MariaDB goes through that one's rows from the list's very beginning,
    # however far behind the place is that `behind` names.
    return found.filter(subscription_id__gte=subscription_id, subscription_id__lte=subscription_id)
