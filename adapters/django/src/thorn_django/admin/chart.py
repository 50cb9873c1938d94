"""A small chart of what became of a subscription's deliveries, day by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import attrs
from django.utils import timezone

from thorn_core.api import OUTCOMES
from thorn_django.models import Delivery

DAYS = 14
# Of a busy subscription the newest deliveries tell enough.
COUNTED = 10_000
BY_STATE = {state.value: name for name, states in OUTCOMES.items() for state in states}
# The drawing's own units.
HEIGHT, PITCH, BAR = 100, 40, 28
# So that one failure among thousands is seen.
LEAST = 3


@attrs.frozen
class Day:
    """What became of the deliveries made on one day.

    Attributes:
        day: The day.
        counts: How many, by outcome.
    """

    day: date
    counts: Counter[str]


@attrs.frozen
class Block:
    """A part of a bar.

    Attributes:
        outcome: What it stands for.
        count: How many deliveries.
        y: Its upper edge.
        height: How high it is.
    """

    outcome: str
    count: int
    y: int
    height: int


def delivery_chart(alias: str, subscription_id: str, now: datetime) -> dict[str, Any]:
    """What the template draws: bars of the last days, and the same as numbers.

    Args:
        alias: Of the database.
        subscription_id: Whose deliveries.
        now: The time.
    """
    rows = list(
        Delivery._base_manager.using(alias)
        .filter(subscription_id=subscription_id, created_at__gte=now - timedelta(days=DAYS))
        .order_by("-created_at", "-id")
        .values_list("created_at", "state")[:COUNTED]
    )
    days = by_day(rows, timezone.localtime(now).date())
    most = max(day.counts.total() for day in days)
    return {
        "bars": [(n * PITCH, n * PITCH + BAR // 2, d, blocks(d, most)) for n, d in enumerate(days)],
        "outcomes": list(OUTCOMES),
        "table": [(day.day, [day.counts[name] for name in OUTCOMES]) for day in days],
        "most": most,
        "width": DAYS * PITCH - (PITCH - BAR),
        "bar": BAR,
        "height": HEIGHT,
        "full": len(rows) == COUNTED,
        "counted": COUNTED,
        "days": DAYS,
    }


def by_day(rows: Iterable[tuple[datetime, str]], today: date) -> Sequence[Day]:
    """Deliveries counted by day and outcome: the last days, this one too, the oldest first.

    Args:
        rows: When each was made, and its state.
        today: The day that it is here.
    """
    first = today - timedelta(days=DAYS - 1)
    days = [Day(first + timedelta(days=n), Counter()) for n in range(DAYS)]
    for at, state in rows:
        n = (timezone.localtime(at).date() - first).days
        if 0 <= n < DAYS:
            days[n].counts[BY_STATE[state]] += 1
    return days


def blocks(day: Day, most: int) -> Sequence[Block]:
    """A day's bar, from the bottom up; however few they are, they can be seen.

    Args:
        day: The day.
        most: How many deliveries the highest bar has.
    """
    heights = {
        n: max(round(HEIGHT * day.counts[n] / most), LEAST) for n in OUTCOMES if day.counts[n]
    }
    if heights:
        largest = max(heights, key=lambda name: heights[name])
        heights[largest] -= max(sum(heights.values()) - HEIGHT, 0)
    found: list[Block] = []
    y = HEIGHT
    for name, height in heights.items():
        y -= height
        found.append(Block(name, day.counts[name], y, height))
    return found
