"""Statistics of a subscription's deliveries: counts and latencies over time, for charts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from thorn_core.api.calls import Call
from thorn_core.api.exchange import ApiResponse, respond
from thorn_core.api.parameters import Parameters
from thorn_core.codecs import format_datetime
from thorn_core.periods import Periods
from thorn_core.values import DeliveryState, Period

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The windows, and the periods that each is divided into: as many as fit into a chart.
STEPS = {
    "hour": (timedelta(minutes=1), 60),
    "day": (timedelta(minutes=30), 48),
    "week": (timedelta(hours=3), 56),
    "month": (timedelta(days=1), 30),
}
DEFAULT_PERIOD = "day"
# Outcomes in charts, from the bottom up, and their states.
OUTCOMES = {
    "delivered": (DeliveryState.DELIVERED,),
    "waiting": (DeliveryState.PENDING, DeliveryState.IN_FLIGHT),
    "failed": (DeliveryState.FAILED,),
    "cancelled": (DeliveryState.CANCELLED,),
}
# Maximum deliveries counted in a response: databases took 0.1 to 0.3 s for this many.
COUNTED = 20_000


def show_stats(call: Call) -> ApiResponse:
    """`GET /hooks/{id}/stats/`."""
    subscription = call.own_subscription()
    parameters = Parameters(call.request, ("period",))
    step, number = STEPS[parameters.one_of("period", STEPS, DEFAULT_PERIOD)]
    parameters.check()
    asked = Periods(
        subscription_id=subscription.id,
        since=_begin(call.app.clock(), step) - (number - 1) * step,
        step=step,
        number=number,
        limit=COUNTED,
    )
    found = call.app.store.periods(asked)
    return respond(
        200,
        {
            "since": format_datetime(asked.since),
            "until": format_datetime(asked.until),
            "step": int(step.total_seconds()),
            "complete": sum(sum(each.deliveries.values()) for each in found) < COUNTED,
            "periods": [_document(each) for each in found],
        },
    )


def _begin(now: datetime, step: timedelta) -> datetime:
    """Return the start of the period of a time: whole minutes, hours or days (UTC)."""
    return now - (now - EPOCH) % step


def _document(period: Period) -> dict[str, Any]:
    counts = {
        name: sum(period.deliveries.get(state, 0) for state in states)
        for name, states in OUTCOMES.items()
    }
    latency = {f"p{percentile}": seconds for percentile, seconds in period.latency.items()}
    return {"at": format_datetime(period.at), **counts, "latency": latency or None}
