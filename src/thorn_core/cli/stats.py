"""`thorn stats`: totals of the store, and recent attempts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import click
from rich.table import Table

from thorn_core.cli.app import find_app
from thorn_core.cli.common import Amount, console, json_option, one_line, span, write_json
from thorn_core.cli.origins import Origins
from thorn_core.values import Stats


@click.command()
@click.option(
    "--hours",
    default=1.0,
    show_default=True,
    type=Amount(0, 87_600, min_open=True),
    help="Period for attempts and latencies.",
)
@json_option
@click.pass_obj
def stats(app_path: str | None, hours: float, *, as_json: bool) -> None:
    """Show totals of the store, and recent attempts."""
    with find_app(app_path) as app:
        found, now = app.stats(window=timedelta(hours=hours)), app.clock()
        origins = Origins(app)
        names = {key: _named(key, origins.of_subscription(key)) for key in found.recipients}
    if as_json:
        write_json([_plain(found)])
        return
    out = console()
    out.print(_counts(found, now, f"{hours:g} h"))
    out.print()
    if found.attempts > 0 and found.latency:
        out.print(_latencies(found, names))
    else:
        out.print("No attempt got a response in this period.")


def _plain(stats: Stats) -> dict[str, object]:
    return {
        "subscriptions": stats.subscriptions,
        "messages": stats.messages,
        "unrouted": stats.unrouted,
        "deliveries": {str(state): count for state, count in stats.deliveries.items()},
        "due_since": stats.due_since and stats.due_since.isoformat(),
        "attempts": stats.attempts,
        "failed_attempts": stats.failed_attempts,
        "window": stats.window.total_seconds(),
        "latency": stats.latency,
        "recipients": stats.recipients,
        "unsent": dict(stats.unsent),
    }


def _counts(stats: Stats, now: datetime, window: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)

    def add(what: str, count: int, more: str = "") -> None:
        table.add_row(what, f"{count:,}", more)

    add("subscriptions", stats.subscriptions)
    add("messages", stats.messages)
    add("  not yet routed", stats.unrouted)
    add("deliveries", sum(stats.deliveries.values()))
    for state, count in stats.deliveries.items():
        add(f"  {state.replace('_', ' ')}", count)
    waits = "none" if stats.due_since is None else span(now - stats.due_since)
    table.add_row("longest wait", waits)
    per_second = stats.attempts / stats.window.total_seconds()
    add(f"attempts in {window}", stats.attempts, f"{per_second:,.2f} per second")
    share = f"{100 * stats.failed_attempts / stats.attempts:.1f} %" if stats.attempts else ""
    add("  failed attempts", stats.failed_attempts, share)
    for event, count in sorted(stats.unsent.items()):
        add(f"not sent by this process: {event}", count, "see its log")
    return table


def _named(subscription_id: str, origin: str | None) -> str:
    return subscription_id if origin is None else f"{origin} ({subscription_id})"


def _latencies(stats: Stats, names: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("latency", overflow="fold")
    for percentile in stats.latency:
        table.add_column(f"{percentile} %", justify="right", no_wrap=True)
    named = {names[key]: latency for key, latency in stats.recipients.items()}
    for name, latency in {"all subscriptions": stats.latency, **named}.items():
        if latency:
            cells = (f"{1000 * seconds:,.1f} ms" for seconds in latency.values())
            table.add_row(one_line(name), *cells)
    return table
