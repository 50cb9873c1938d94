"""`thorn erase`: delete everything that was sent about a user or tenant."""

from __future__ import annotations

import sys

import click

from thorn_core.cli.app import find_app
from thorn_core.cli.common import counted, json_option, write_json
from thorn_core.paging import PAGE
from thorn_core.removing import BATCH_LIMIT


@click.command()
@click.argument("sender")
@click.option(
    "--batch",
    default=PAGE,
    show_default=True,
    type=click.IntRange(1, BATCH_LIMIT),
    help="Messages deleted per transaction.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option
@click.pass_obj
def erase(app_path: str | None, sender: str, batch: int, *, yes: bool, as_json: bool) -> int:
    """Delete every message of a sender, with its payload, deliveries and attempts.

    The deliveries may be in any state. Subscriptions of that user or tenant stay. Exits 1 if you
    decline the prompt.
    """
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("standard input is no terminal: pass --yes to delete")
    with find_app(app_path) as app:
        question = f"Delete every message of sender {sender!r}, delivered or not?"
        if not (yes or click.confirm(question, err=True)):
            click.echo("Nothing was deleted.", err=True)
            return 1
        count = app.erase(sender, batch=batch)
    if as_json:
        write_json([{"erased": count}])
    else:
        click.echo(f"Deleted {counted(count, 'message', 'messages')}.")
    return 0
