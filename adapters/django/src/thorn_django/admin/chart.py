"""A small chart of the results of a subscription's deliveries per day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import attrs
from django.utils import timezone

from thorn_core import Period
from thorn_core.api import OUTCOMES
from thorn_core.periods import Periods
from thorn_django import get_app

DAYS = 14
# For a busy subscription, the newest deliveries are enough.
COUNTED = 10_000
# The units of the drawing.
HEIGHT, PITCH, BAR = 100, 40, 28
# The minimum height, so that one failure among thousands is visible.
LEAST = 3


@attrs.frozen
class Day:
    """The results of the deliveries created on one day.

    Attributes:
        day: The day.
        counts: The number of deliveries by outcome.
    """

    day: date
    counts: Counter[str]


@attrs.frozen
class Block:
    """A part of a bar.

    Attributes:
        outcome: The outcome of its deliveries.
        count: The number of deliveries.
        y: The upper edge.
        height: The height.
    """

    outcome: str
    count: int
    y: int
    height: int


def delivery_chart(subscription_id: str, now: datetime) -> dict[str, Any]:
    """Return the template's data: bars of the last days, and the same as numbers.

    Args:
        subscription_id: The subscription's id.
        now: The current time.
    """
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = Periods(
        subscription_id=subscription_id,
        since=today - timedelta(days=DAYS - 1),
        step=timedelta(days=1),
        number=DAYS,
        limit=COUNTED,
    )
    days = by_day(get_app().store.periods(asked))
    counts = [day.counts.total() for day in days]
    most = max(counts)
    return {
        "bars": [(n * PITCH, n * PITCH + BAR // 2, d, blocks(d, most)) for n, d in enumerate(days)],
        "outcomes": list(OUTCOMES),
        "table": [(day.day, [day.counts[name] for name in OUTCOMES]) for day in days],
        "most": most,
        "width": DAYS * PITCH - (PITCH - BAR),
        "bar": BAR,
        "height": HEIGHT,
        "full": sum(counts) >= COUNTED,
        "counted": COUNTED,
        "days": DAYS,
    }


def by_day(periods: Iterable[Period]) -> Sequence[Day]:
    """Return the number of deliveries by day and outcome.

    Args:
        periods: One period per day, beginning at midnight in the current time zone's present
            offset.
    """
    return [
        Day(
            timezone.localtime(period.at).date(),
            Counter(
                {
                    name: sum(period.deliveries.get(state, 0) for state in states)
                    for name, states in OUTCOMES.items()
                }
            ),
        )
        for period in periods
    ]


def blocks(day: Day, most: int) -> Sequence[Block]:
    """Return a day's bar from the bottom up; small blocks keep a visible height.

    Args:
        day: The day.
        most: The number of deliveries in the highest bar.
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
