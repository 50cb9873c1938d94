"""Count a worker's results, and show them as a live status line."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from time import monotonic
from typing import Any, Self

import attrs
from rich.text import Text

from thorn_core import signals
from thorn_core.app import Thorn
from thorn_core.cli.common import span
from thorn_core.errors import ThornError
from thorn_core.values import Attempt, Delivery, Stats

# Seconds over which the rate is measured.
RATE_SECONDS = 5.0
# Seconds between counts of the backlog: the minimum, and a multiple of the time that a count takes.
LOOK_SECONDS = 2.0
LOOK_SHARE = 50


@attrs.frozen(kw_only=True)
class Figures:
    """Results of a worker.

    Attributes:
        attempts: Requests made.
        failed_attempts: Requests without a 2xx response.
        delivered: Successful deliveries.
        failed: Deliveries without any attempts left.
        cancelled: Deliveries that will not be attempted: refused, gone, or without a subscription.
        retrying: Failed attempts that will be retried.
    """

    attempts: int = 0
    failed_attempts: int = 0
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    retrying: int = 0

    def since(self, former: Figures) -> Figures:
        """Return the difference to earlier figures."""
        mine, then = attrs.asdict(self), attrs.asdict(former)
        return Figures(**{name: mine[name] - then[name] for name in mine})

    def __str__(self) -> str:
        told = [f"{self.delivered:,} delivered"]
        if self.failed_attempts:
            attempts = "attempt" if self.failed_attempts == 1 else "attempts"
            told.append(f"{self.failed_attempts:,} {attempts} failed ({self.retrying:,} to retry)")
        if self.failed:
            told.append(f"{self.failed:,} failed")
        if self.cancelled:
            told.append(f"{self.cancelled:,} cancelled")
        return ", ".join(told)


class Tally:
    """Counts the results of an app's workers in this process; a context manager.

    Args:
        app: The app.
    """

    def __init__(self, app: Thorn) -> None:
        self._app = app
        self._stack = ExitStack()
        self._counts = dict.fromkeys((field.name for field in attrs.fields(Figures)), 0)

    def __enter__(self) -> Self:
        for signal, receiver in (
            (signals.attempt_made, self._attempted),
            (signals.delivery_delivered, self._delivered),
            (signals.delivery_failed, self._failed),
            (signals.delivery_cancelled, self._cancelled),
        ):
            self._stack.enter_context(signal.connected_to(receiver, sender=self._app))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def figures(self) -> Figures:
        """Return the results so far."""
        return Figures(**self._counts)

    # Called on the engine's thread only, so counting needs no lock.

    def _attempted(self, sender: Thorn, *, attempt: Attempt, delivery: Delivery) -> None:
        self._counts["attempts"] += 1
        if not attempt.ok:
            self._counts["failed_attempts"] += 1
            self._counts["retrying"] += 1

    def _delivered(self, sender: Thorn, **told: Any) -> None:
        self._counts["delivered"] += 1

    def _failed(self, sender: Thorn, **told: Any) -> None:
        self._counts["failed"] += 1
        self._counts["retrying"] -= 1

    def _cancelled(self, sender: Thorn, *, delivery: Delivery, attempt: Attempt | None) -> None:
        self._counts["cancelled"] += 1
        if attempt is not None:
            self._counts["retrying"] -= 1


class Rate:
    """A rate per second over the last few seconds.

    Example:
        >>> rate = Rate()
        >>> rate.of(0, at=0.0), rate.of(30, at=2.0), rate.of(30, at=60.0)
        (0.0, 15.0, 0.0)
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def of(self, count: int, *, at: float) -> float:
        """Return the rate after another count.

        Args:
            count: The total so far.
            at: Seconds of a monotonic clock.
        """
        samples = self._samples
        samples.append((at, count))
        while len(samples) > 2 and samples[1][0] < at - RATE_SECONDS:
            samples.popleft()
        then, former = samples[0]
        return (count - former) / (at - then) if at > then else 0.0


class Trouble(logging.Handler):
    """Watches the log for failures of the store, and for the time of its next retry.

    Args:
        show: Prints a record; repeated failures of the store are not printed.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._again: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        told_before = self._again is not None
        if hasattr(record, "retry_in"):
            seconds = record.retry_in
            self._again = None if seconds is None else monotonic() + seconds
        if not (told_before and self._again is not None and hasattr(record, "retry_in")):
            self._show(self.format(record))

    def over(self, *told: object, **more: object) -> None:
        """Note that the store works again, because it recorded an attempt."""
        self._again = None

    @property
    def seconds(self) -> float | None:
        """Return the seconds until the store is retried; None if it works."""
        return None if self._again is None else max(self._again - monotonic(), 0.0)


class Backlog:
    """Counts the backlog at intervals, at little cost for the store.

    Args:
        app: The app with the store.
    """

    def __init__(self, app: Thorn) -> None:
        self._app = app
        self._stats: Stats | None = None
        self._fails = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="thorn-backlog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(LOOK_SECONDS)

    def _look_on(self) -> None:
        while not self._ended.is_set():
            began = monotonic()
            self.look()
            took = monotonic() - began
            self._ended.wait(max(LOOK_SECONDS, LOOK_SHARE * took))

    def look(self) -> None:
        """Count the backlog now."""
        try:
            self._stats = self._app.stats(window=timedelta(seconds=1))
            self._fails = False
        except ThornError:
            self._fails = True

    def __str__(self) -> str:
        stats = self._stats
        if self._fails or stats is None:
            return "the store is unavailable" if self._fails else ""
        if stats.due_since is None:
            return "nothing waiting"
        waiting = stats.unrouted + sum(
            count for state, count in stats.deliveries.items() if state == "pending"
        )
        return f"{waiting:,} waiting, oldest for {span(self._app.clock() - stats.due_since)}"


def status_line(
    figures: Figures,
    *,
    rate: float,
    in_flight: int,
    backlog: str = "",
    trouble: float | None = None,
    stopping: bool = False,
) -> Text:
    """Return the two status lines of a worker; they fit into 80 columns.

    Args:
        figures: Its results.
        rate: Deliveries per second.
        in_flight: Requests in flight.
        backlog: The backlog, in words.
        trouble: Seconds until the store is retried; None if it works.
        stopping: The worker is stopping.
    """
    line = Text(f"{figures.delivered:,} delivered", style="bold", no_wrap=True, overflow="ellipsis")
    line.append(f"  {rate:,.0f}/s", style="cyan")
    if figures.failed_attempts:
        line.append(f"  {figures.failed_attempts:,} failed", style="red")
        line.append(f"  {figures.retrying:,} to retry", style="yellow")
    line.append(f"  {in_flight:,} in flight\n")
    if stopping:
        line.append("stopping after the requests in flight", style="yellow")
    elif trouble is not None:
        then = f"retrying in {trouble:.0f} s" if trouble >= 0.5 else "retrying now"
        line.append(f"the store is failing, {then}", style="red")
    else:
        line.append(backlog, style="dim")
    return line
