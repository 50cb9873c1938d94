"""Latencies: which are told, and how they are summed up."""

from __future__ import annotations

import math
from collections.abc import Mapping

PERCENTILES = (50, 95, 99)
# Recipients whose latencies are told.
BUSIEST = 20
# Latencies are counted to the tenth of a millisecond, so that a database can do it.
STEPS = 10_000


def percentiles(counts: Mapping[float, int]) -> dict[int, float]:
    """The 50th, 95th and 99th percentile of counted values, by nearest rank; none of none.

    Args:
        counts: How often each value was there.

    Example:
        >>> percentiles({3.0: 1, 1.0: 1, 2.0: 1})
        {50: 2.0, 95: 3.0, 99: 3.0}
    """
    total = sum(counts.values())
    found: dict[int, float] = {}
    seen = 0
    for value, count in sorted(counts.items()):
        seen += count
        for p in PERCENTILES:
            if p not in found and seen >= max(math.ceil(p / 100 * total), 1):
                found[p] = value
    return found
