"""Periods: how deliveries to one subscription went, counted by when they were made."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import attrs

from thorn_core.latencies import STEPS, percentiles
from thorn_core.values import DeliveryState, Period


@attrs.frozen(kw_only=True)
class Periods:
    """Which periods are asked for: so many, one after another, of the same length.

    Attributes:
        subscription_id: Deliveries to this subscription.
        since: When the first begins.
        step: How long each is.
        number: How many there are.
        limit: Only this many deliveries are looked at, the newest, and those made at the same time.
    """

    subscription_id: str
    since: datetime
    step: timedelta
    number: int
    limit: int

    @property
    def until(self) -> datetime:
        """When the last ends."""
        return self.since + self.number * self.step

    def made(
        self,
        counts: Iterable[tuple[int, str, int]],
        latencies: Iterable[tuple[int | None, float, int]],
    ) -> list[Period]:
        """Make them of what a store has counted.

        Args:
            counts: Number of a period, state of deliveries made in it, how many.
            latencies: Number of a period; tenths of a millisecond that attempts made in it took
                which got a response; how many. Attempts made in none of them are left out.

        Example:
            >>> from datetime import UTC
            >>> day = datetime(2026, 1, 1, tzinfo=UTC)
            >>> asked = Periods(
            ...     subscription_id="sub_1", since=day, step=timedelta(hours=12), number=2, limit=9
            ... )
            >>> first, second = asked.made([(1, "delivered", 3)], [(1, 250, 2)])
            >>> first.deliveries, second.deliveries, second.latency[50]
            ({}, {<DeliveryState.DELIVERED: 'delivered'>: 3}, 0.025)
        """
        states: list[dict[DeliveryState, int]] = [{} for _ in range(self.number)]
        steps: list[dict[float, int]] = [{} for _ in range(self.number)]
        for n, state, many in counts:
            states[n][DeliveryState(state)] = many
        for at, tenths, many in latencies:
            if at is not None and 0 <= at < self.number:
                steps[at][float(tenths) / STEPS] = many
        return [
            Period(
                at=self.since + n * self.step,
                deliveries=states[n],
                latency=percentiles(steps[n]),
            )
            for n in range(self.number)
        ]
