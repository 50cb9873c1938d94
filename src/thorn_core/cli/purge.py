"""`thorn purge`: delete old deliveries."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from thorn_core.cli.app import find_app
from thorn_core.cli.common import counted, progress_bar, write_json
from thorn_core.cli.criteria import FINISHED, Ago
from thorn_core.paging import PAGE
from thorn_core.queries import delivery_query
from thorn_core.removing import BATCH_LIMIT


@click.command()
@click.option("--older-than", "until", type=Ago(), help="Age limit: 30d, 12h, 2026-03-01.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=FINISHED,
    help="Only deliveries in this state (repeatable).",
)
@click.option("--event", help="Only events that match this pattern.")
@click.option("--subscription", "subscription_id", help="Only this subscription.")
@click.option(
    "--batch",
    default=PAGE,
    show_default=True,
    type=click.IntRange(1, BATCH_LIMIT),
    help="Deliveries deleted per transaction.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.option("--dry-run", is_flag=True, help="Count the deliveries without deleting them.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    """Delete finished deliveries older than a given time.

    Their attempts are deleted with them, and so are messages that have no deliveries left. Pending
    and in-flight deliveries stay, however old. Without other filters, old messages that had no
    recipients are deleted too. Exits 1 if you decline the prompt.
    """
    if until is None:
        raise click.UsageError("purge needs an age limit, such as --older-than 30d")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError(
            "standard input is no terminal: pass --yes to delete, or --dry-run to count"
        )
    state = states or None
    with find_app(app_path) as app:
        query = delivery_query(
            None, chosen["subscription_id"], chosen["event"], state, None, until
        ).only_finished()
        total = app.store.count(query)
        several = counted(total, "delivery", "deliveries")
        question = f"Delete {several} created before {until.astimezone():%Y-%m-%d %H:%M}"
        if not (yes or dry_run or click.confirm(f"{question} and their messages?", err=True)):
            click.echo("Nothing was deleted.", err=True)
            return 1
        count = 0
        if not dry_run:
            with progress_bar("Deleting", total) as progress:
                count = app.purge(
                    until=until, state=state, batch=batch, **chosen, progress=progress
                )
    if as_json:
        found = {"purged": count, "dry_run": dry_run, "until": until.isoformat()}
        write_json([{**found, "found": total} if dry_run else found])
    elif dry_run:
        click.echo(f"Would delete {several}.")
    else:
        click.echo(f"Deleted {counted(count, 'delivery', 'deliveries')}.")
    return 0
