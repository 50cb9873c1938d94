"""Options and output that the commands share."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON line per entry.")


class Amount(click.FloatRange):
    """A number within limits; `nan` is within none, though it compares as if it were."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def plain(value: object) -> Text:
    """Text that may come from elsewhere, fit for a terminal.

    It is no markup, and what could steer the terminal (escape sequences, changes of direction) is
    replaced.

    Args:
        value: Its text; None is none.

    Example:
        >>> plain("[bold]" + chr(27) + "[2J").plain == "[bold]" + chr(0xFFFD) + "[2J"
        True
    """
    return Text("" if value is None else safe(str(value)))


def safe(text: str) -> str:
    """Text without what could steer a terminal: escape sequences, changes of direction.

    Lines stay.

    Example:
        >>> safe("a" + chr(9) + "b" + chr(27) + "[2J") == "a    b" + chr(0xFFFD) + "[2J"
        True
    """
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}"
        for c in text.replace("\t", "    ")
    )


def counted(number: int, one: str, many: str) -> str:
    """A number of things, in words.

    Example:
        >>> counted(1, "delivery", "deliveries"), counted(0, "delivery", "deliveries")
        ('1 delivery', '0 deliveries')
    """
    return f"{number:,} {one if number == 1 else many}"


def one_line(value: object) -> Text:
    """Text that may come from elsewhere, fit for a terminal and on one line.

    Example:
        >>> one_line("503: try" + chr(10) + "later").plain
        '503: try later'
    """
    return plain(None if value is None else " ".join(str(value).split()))


def span(duration: timedelta) -> str:
    """How long something is, in the largest unit that is at least one.

    Example:
        >>> [span(timedelta(seconds=seconds)) for seconds in (0.2, 75, 7200, 200_000)]
        ['0 s', '1 min', '2 h', '2 d']
    """
    seconds = abs(duration.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"


def when(time: datetime, now: datetime) -> str:
    """A time, as seen from now.

    Example:
        >>> now = datetime(2026, 3, 1)
        >>> when(now - timedelta(hours=2), now), when(now + timedelta(days=1), now)
        ('2 h ago', 'in 1 d')
    """
    return f"in {span(time - now)}" if time > now else f"{span(now - time)} ago"


@contextmanager
def progress_bar(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far something is, on standard error if that is a terminal.

    Args:
        doing: What, such as `Replaying`.
        total: How many there are; None if that isn't known.

    Returns:
        A function to call with how many are done.
    """
    shown_on = Console(stderr=True)
    if not shown_on.is_terminal:
        yield lambda done: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=shown_on,
        transient=True,
    ) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)


def write_json(values: Iterable[Any]) -> None:
    """Print values as JSON, a line each."""
    for value in values:
        click.echo(json_line(value))


def json_line(value: Any) -> str:
    """A value as JSON on one line; what could steer a terminal or end the line is escaped.

    Example:
        >>> json_line({"é": "a" + chr(0x9B) + "2J" + chr(0x2028)}) == (
        ...     '{"é": "a' + chr(92) + 'u009b2J' + chr(92) + 'u2028"}')
        True
    """
    text = json.dumps(value, default=str, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def console() -> Console:
    """Where tables go: the terminal's width, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
