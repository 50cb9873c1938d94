"""Latencies: percentiles of counted response times."""

from __future__ import annotations

import math
from collections.abc import Mapping

PERCENTILES = (50, 95, 99)
# Maximum number of recipients in statistics of latencies.
BUSIEST = 20
# Latencies are counted in tenths of a millisecond, which databases can group by.
STEPS = 10_000


def percentiles(counts: Mapping[float, int]) -> dict[int, float]:
    """Return the 50th, 95th and 99th percentile of counted values, by nearest rank.

    Args:
        counts: The number of occurrences of each value; if empty, there are no percentiles.

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
