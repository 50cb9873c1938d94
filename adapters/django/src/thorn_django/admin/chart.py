"""A small chart of what became of a subscription's deliveries, day by day."""

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
# Of a busy subscription the newest deliveries tell enough.
COUNTED = 10_000
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


def delivery_chart(subscription_id: str, now: datetime) -> dict[str, Any]:
    """What the template draws: bars of the last days, and the same as numbers.

    Args:
        subscription_id: Whose deliveries.
        now: The time.
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
    """Deliveries counted by day and outcome.

    Args:
        periods: One for each day, which begins at midnight as it is here now.
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
