"""Periods: deliveries to one subscription, counted by their time of creation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import attrs

from thorn_core.latencies import STEPS, percentiles
from thorn_core.values import DeliveryState, Period


@attrs.frozen(kw_only=True)
class Periods:
    """A request for statistics of consecutive periods of equal length.

    Attributes:
        subscription_id: Deliveries to this subscription.
        since: Start of the first period.
        step: Length of each period.
        number: Number of periods.
        limit: Count only about this many deliveries, the newest, and those created with the last.
    """

    subscription_id: str
    since: datetime
    step: timedelta
    number: int
    limit: int

    @property
    def until(self) -> datetime:
        """The end of the last period."""
        return self.since + self.number * self.step

    def made(
        self,
        counts: Iterable[tuple[int, str, int]],
        latencies: Iterable[tuple[int | None, float, int]],
    ) -> list[Period]:
        """Create the periods from a store's counts.

        Args:
            counts: Index of a period, state of deliveries created in it, their number.
            latencies: Index of a period, latency in tenths of a millisecond of attempts in it that
                got a response, their number. Attempts outside the periods are ignored.

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
