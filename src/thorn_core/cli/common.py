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
    """A number within limits; `nan` is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def plain(value: object) -> Text:
    """Return untrusted text that is safe to print on a terminal, without markup.

    Control characters, escape sequences and changes of text direction are replaced.

    Args:
        value: Converted to a string; None becomes an empty one.

    Example:
        >>> plain("[bold]" + chr(27) + "[2J").plain == "[bold]" + chr(0xFFFD) + "[2J"
        True
    """
    return Text("" if value is None else safe(str(value)))


def safe(text: str) -> str:
    """Replace escape sequences and changes of text direction; keep line breaks.

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
    """Return a number with its noun, in the singular or plural.

    Example:
        >>> counted(1, "delivery", "deliveries"), counted(0, "delivery", "deliveries")
        ('1 delivery', '0 deliveries')
    """
    return f"{number:,} {one if number == 1 else many}"


def one_line(value: object) -> Text:
    """Return untrusted text on one line, safe to print on a terminal.

    Example:
        >>> one_line("503: try" + chr(10) + "later").plain
        '503: try later'
    """
    return plain(None if value is None else " ".join(str(value).split()))


def span(duration: timedelta) -> str:
    """Format a duration in the largest unit in which it is at least one.

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
    """Format a time relative to now.

    Example:
        >>> now = datetime(2026, 3, 1)
        >>> when(now - timedelta(hours=2), now), when(now + timedelta(days=1), now)
        ('2 h ago', 'in 1 d')
    """
    return f"in {span(time - now)}" if time > now else f"{span(now - time)} ago"


@contextmanager
def progress_bar(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if that is a terminal.

    Args:
        doing: The label, such as `Replaying`.
        total: Number of items; None if unknown.

    Returns:
        A function to call with the number of finished items.
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
    """Print values as JSON, one per line."""
    for value in values:
        click.echo(json_line(value))


def json_line(value: Any) -> str:
    """Encode a value as one line of JSON; escape control characters and line separators.

    Example:
        >>> json_line({"é": "a" + chr(0x9B) + "2J" + chr(0x2028)}) == (
        ...     '{"é": "a' + chr(92) + 'u009b2J' + chr(92) + 'u2028"}')
        True
    """
    text = json.dumps(value, default=str, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def console() -> Console:
    """Return a console for tables, as wide as the terminal, or 120 columns without one."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
