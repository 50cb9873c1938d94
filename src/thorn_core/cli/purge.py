"""`thorn purge`: remove what is old."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from thorn_core.cli.app import find_app
from thorn_core.cli.common import counted, progress_bar, write_json
from thorn_core.cli.criteria import SETTLED, Ago
from thorn_core.history import BATCH_LIMIT
from thorn_core.paging import PAGE
from thorn_core.stores.base import delivery_query


@click.command()
@click.option("--older-than", "until", type=Ago(), help="Made before: 30d, 12h, 2026-03-01.")
@click.option(
    "--state", "states", multiple=True, type=SETTLED, help="Only in this state; may be repeated."
)
@click.option("--event", help="Only of events that match this pattern.")
@click.option("--subscription", "subscription_id", help="Only to this subscription.")
@click.option(
    "--batch",
    default=PAGE,
    show_default=True,
    type=click.IntRange(1, BATCH_LIMIT),
    help="Deliveries removed at once, in a transaction of their own.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON.")
@click.pass_obj
def purge(
    app_path: str | None,
    /,
    until: datetime | None,
    states: tuple[str, ...],
    batch: int,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Remove settled deliveries of before a time.

    With them go their attempts, and their messages if no delivery is left. What is pending or in
    flight stays, however old. Messages that reached nobody go too, unless other criteria are given.
    Exits 1 if you say no.
    """
    if until is None:
        raise click.UsageError("purge needs to know the age: --older-than 30d")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: say --yes, or --dry-run to only count")
    state = states or None
    with find_app(app_path) as app:
        query = delivery_query(
            None, chosen["subscription_id"], chosen["event"], state, None, until
        ).only_settled()
        total = app.store.count(query)
        several = counted(total, "delivery", "deliveries")
        question = f"Remove {several} made before {until.astimezone():%Y-%m-%d %H:%M}"
        if not (yes or dry_run or click.confirm(f"{question} and their messages?", err=True)):
            click.echo("Nothing was removed.", err=True)
            return 1
        count = 0
        if not dry_run:
            with progress_bar("Removing", total) as progress:
                count = app.purge(
                    until=until, state=state, batch=batch, **chosen, progress=progress
                )
    if as_json:
        found = {"purged": count, "dry_run": dry_run, "until": until.isoformat()}
        write_json([{**found, "found": total} if dry_run else found])
    elif dry_run:
        click.echo(f"{several} would be removed.")
    else:
        click.echo(f"Removed {counted(count, 'delivery', 'deliveries')}.")
    return 0
