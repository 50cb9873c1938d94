"""`thorn deliveries` and `attempts`: lists and details."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import attrs
import click
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from thorn_core.cli.app import find_app
from thorn_core.cli.common import (
    console,
    counted,
    json_option,
    one_line,
    plain,
    when,
    write_json,
)
from thorn_core.cli.criteria import criteria
from thorn_core.cli.origins import Origins
from thorn_core.errors import NotFoundError
from thorn_core.values import Attempt, Delivery

# Columns that a narrow terminal cuts off.
CUT = ("event", "events", "origin", "owner")
# Maximum characters shown of a response's body.
BODY_SHOWN = 300


@attrs.frozen
class Row:
    """One entry of a list.

    Attributes:
        cells: Values of the columns, one line each.
        notes: Lines below the row, never cut off: long texts, and the id.
    """

    cells: tuple[object, ...]
    notes: tuple[str | None, ...]


def show_list(columns: Sequence[str], rows: Iterable[Row], empty: str) -> None:
    """Print a list. A narrow terminal cuts off events, origins and owners.

    Args:
        columns: Headings.
        rows: Entries.
        empty: Text for an empty list.
    """
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column == "attempts" else "left"
        table.add_column(column, no_wrap=column not in CUT, justify=justify)
    notes: list[tuple[str | None, ...]] = [()]
    for row in rows:
        cells = [one_line(cell) for cell in row.cells]
        for cell in cells:
            cell.no_wrap, cell.overflow = True, "ellipsis"
        table.add_row(*cells)
        notes.append(row.notes)
    if not table.row_count:
        out.print(empty)
        return
    for line, beneath in zip(out.render_lines(table, pad=False), notes, strict=True):
        text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        text.rstrip()
        out.print(text, soft_wrap=True)
        for note in filter(None, beneath):
            out.print(Text("  ").append(one_line(note)), style="dim", soft_wrap=True)


@click.command()
@criteria
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1))
@json_option
@click.pass_obj
def deliveries(
    app_path: str | None, /, limit: int, states: tuple[str, ...], *, as_json: bool, **chosen: Any
) -> None:
    """List deliveries, oldest first."""
    with find_app(app_path) as app:
        found = islice(app.deliveries(state=states or None, **chosen), limit)
        origins = Origins(app)
        if as_json:
            write_json(
                {
                    "id": d.id,
                    "event": d.event,
                    "origin": origins.of(d),
                    "message": d.message_id,
                    "subscription": d.subscription_id,
                    "state": d.shown_state,
                    "attempts": d.attempt_count,
                    "created_at": d.created_at.isoformat(),
                    "due_at": d.due_at.isoformat(),
                    "finished_at": d.finished_at and d.finished_at.isoformat(),
                    "reason": d.reason,
                }
                for d in found
            )
            return
        now = app.clock()
        columns = ("event", "origin", "state", "when", "attempts")
        rows = (
            Row(
                (d.event, origins.shown(d), d.shown_state, _when(d, now), d.attempt_count),
                (d.reason, d.id),
            )
            for d in found
        )
        show_list(columns, rows, "No deliveries match these filters.")


def _when(delivery: Delivery, now: datetime) -> str:
    """Return when the delivery is due, or when it finished."""
    if delivery.held:
        return "when resumed"
    if delivery.finished_at is None and delivery.due_at <= now:
        return "now"
    return when(delivery.finished_at or delivery.due_at, now)


@click.command()
@click.argument("delivery_id", metavar="DELIVERY")
@json_option
@click.pass_obj
def attempts(app_path: str | None, delivery_id: str, *, as_json: bool) -> None:
    """Show the attempts of a delivery: time, duration and response.

    Exits 1 if the delivery doesn't exist.
    """
    with find_app(app_path) as app:
        delivery = app.delivery(delivery_id)
        if delivery is None:
            raise NotFoundError(
                f"there is no delivery {delivery_id!r}; list deliveries with thorn deliveries"
            )
        found = list(app.attempts(delivery_id))
        whom = Origins(app).shown(delivery)
    if as_json:
        write_json(map(_plain, found))
    else:
        _show(delivery, whom, found)


def _plain(attempt: Attempt) -> dict[str, object]:
    return {
        "delivery": attempt.delivery_id,
        "number": attempt.number,
        "at": attempt.at.isoformat(),
        "duration": round(attempt.duration, 6),
        "status": attempt.status,
        "error": attempt.error,
        "timed_out": attempt.timed_out,
        "headers": dict(attempt.headers),
        "body": attempt.body.decode("utf-8", "replace"),
    }


def _show(delivery: Delivery, whom: str, found: Sequence[Attempt]) -> None:
    out = console()
    reason = f", {delivery.reason}" if delivery.reason else ""
    many = counted(delivery.attempt_count, "attempt", "attempts")
    out.print(plain(f"{delivery.event} to {whom}: {delivery.shown_state} after {many}{reason}"))
    if delivery.held:
        out.print("It is held until its subscription is resumed.")
    elif delivery.finished_at is None:
        out.print(f"Next attempt at {delivery.due_at.astimezone():%Y-%m-%d %H:%M:%S}.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("#", "time", "duration", "status", "response"):
        table.add_column(
            column,
            justify="right" if column in ("#", "duration") else "left",
            no_wrap=column != "response",
            overflow="fold",
        )
    for attempt in found:
        body = attempt.body[: 4 * BODY_SHOWN].decode("utf-8", "replace")[:BODY_SHOWN]
        table.add_row(
            str(attempt.number),
            f"{attempt.at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{1000 * attempt.duration:.1f} ms",
            plain(attempt.status),
            plain(attempt.error) if attempt.error else one_line(body),
        )
    if found:
        out.print()
        out.print(table)
