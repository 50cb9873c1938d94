"""What a worker does, counted, and shown as a line that lives in a terminal."""

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

# Seconds that the rate speaks of.
RATE_SECONDS = 5.0
# Seconds between looks at how much waits: the least, and how many times as long as a look took.
LOOK_SECONDS = 2.0
LOOK_SHARE = 50


@attrs.frozen(kw_only=True)
class Figures:
    """What has been done.

    Attributes:
        attempts: Requests made.
        failed: Of those, how many got no 2xx.
        delivered: Deliveries made.
        exhausted: Deliveries given up.
        discarded: Deliveries that won't be made: refused, gone, without a subscription.
        retrying: Failed attempts that will be followed by another.
    """

    attempts: int = 0
    failed: int = 0
    delivered: int = 0
    exhausted: int = 0
    discarded: int = 0
    retrying: int = 0

    def since(self, former: Figures) -> Figures:
        """What has been done since then."""
        mine, then = attrs.asdict(self), attrs.asdict(former)
        return Figures(**{name: mine[name] - then[name] for name in mine})

    def __str__(self) -> str:
        told = [f"{self.delivered:,} delivered"]
        if self.failed:
            told.append(f"{self.failed:,} failed ({self.retrying:,} to retry)")
        if self.exhausted:
            told.append(f"{self.exhausted:,} exhausted")
        if self.discarded:
            told.append(f"{self.discarded:,} discarded")
        return ", ".join(told)


class Tally:
    """Counts what an app's workers do in this process, by its signals; a context manager.

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
            (signals.delivery_exhausted, self._exhausted),
            (signals.delivery_discarded, self._discarded),
        ):
            self._stack.enter_context(signal.connected_to(receiver, sender=self._app))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def figures(self) -> Figures:
        """What has been done so far."""
        return Figures(**self._counts)

    # Called on the engine's thread only, so that counting needs no lock.

    def _attempted(self, sender: Thorn, *, attempt: Attempt, delivery: Delivery) -> None:
        self._counts["attempts"] += 1
        if not attempt.ok:
            self._counts["failed"] += 1
            self._counts["retrying"] += 1

    def _delivered(self, sender: Thorn, **told: Any) -> None:
        self._counts["delivered"] += 1

    def _exhausted(self, sender: Thorn, **told: Any) -> None:
        self._counts["exhausted"] += 1
        self._counts["retrying"] -= 1

    def _discarded(self, sender: Thorn, *, delivery: Delivery, attempt: Attempt | None) -> None:
        self._counts["discarded"] += 1
        if attempt is not None:
            self._counts["retrying"] -= 1


class Rate:
    """How many a second, over the last seconds.

    Example:
        >>> rate = Rate()
        >>> rate.of(0, at=0.0), rate.of(30, at=2.0), rate.of(30, at=60.0)
        (0.0, 15.0, 0.0)
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def of(self, count: int, *, at: float) -> float:
        """The rate, now that there are so many.

        Args:
            count: How many in all.
            at: Seconds, by any clock that only goes forward.
        """
        samples = self._samples
        samples.append((at, count))
        while len(samples) > 2 and samples[1][0] < at - RATE_SECONDS:
            samples.popleft()
        then, former = samples[0]
        return (count - former) / (at - then) if at > then else 0.0


class Trouble(logging.Handler):
    """Knows from the log whether the store fails, and when it is tried again.

    Args:
        show: Prints a record; not those that say again that the store fails.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._again: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take note, and print it."""
        told_before = self._again is not None
        if hasattr(record, "retry_in"):
            seconds = record.retry_in
            self._again = None if seconds is None else monotonic() + seconds
        if not (told_before and self._again is not None and hasattr(record, "retry_in")):
            self._show(self.format(record))

    def over(self, *told: object, **more: object) -> None:
        """The store works, as an attempt that it recorded shows."""
        self._again = None

    @property
    def seconds(self) -> float | None:
        """Until the store is tried again; None if it works."""
        return None if self._again is None else max(self._again - monotonic(), 0.0)


class Backlog:
    """Looks now and then how much waits: so seldom that it costs the store next to nothing.

    Args:
        app: Whose store.
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
        """See how much waits now."""
        try:
            self._stats = self._app.stats(window=timedelta(seconds=1))
            self._fails = False
        except ThornError:
            self._fails = True

    def __str__(self) -> str:
        stats = self._stats
        if self._fails or stats is None:
            return "the store can't be asked" if self._fails else ""
        if stats.due_since is None:
            return "nothing is due"
        waiting = stats.unrouted + sum(
            count for state, count in stats.deliveries.items() if state == "pending"
        )
        return f"{waiting:,} waiting, due for {span(self._app.clock() - stats.due_since)}"


def status_line(
    figures: Figures,
    *,
    rate: float,
    in_flight: int,
    backlog: str = "",
    trouble: float | None = None,
    stopping: bool = False,
) -> Text:
    """The lines that say what a worker does; they fit 80 columns.

    Args:
        figures: What it has done.
        rate: Deliveries a second.
        in_flight: What it has under way.
        backlog: How much waits.
        trouble: Seconds until the store is tried again; None if it works.
        stopping: It has been told to stop.
    """
    line = Text(f"{figures.delivered:,} delivered", style="bold", no_wrap=True, overflow="ellipsis")
    line.append(f"  {rate:,.0f}/s", style="cyan")
    if figures.failed:
        line.append(f"  {figures.failed:,} failed", style="red")
        line.append(f"  {figures.retrying:,} to retry", style="yellow")
    line.append(f"  {in_flight:,} in flight\n")
    if stopping:
        line.append("stopping: what is in flight is given time to end", style="yellow")
    elif trouble is not None:
        then = f"trying again in {trouble:.0f} s" if trouble >= 0.5 else "trying now"
        line.append(f"the store can't work, {then}", style="red")
    else:
        line.append(backlog, style="dim")
    return line
