"""`thorn cancel`: cancel pending deliveries."""

from __future__ import annotations

from datetime import datetime

import click

from thorn_core.cli.app import find_app
from thorn_core.cli.common import counted, json_option, progress_bar, write_json
from thorn_core.cli.criteria import without_states
from thorn_core.history import queried
from thorn_core.values import DeliveryState


@click.command()
@click.argument("delivery_ids", nargs=-1, metavar="[DELIVERY]...")
@without_states
@click.option("--reason", default="cancelled by an operator", help="Shown to the owner.")
@json_option
@click.pass_obj
def cancel(
    app_path: str | None,
    /,
    delivery_ids: tuple[str, ...],
    reason: str,
    *,
    as_json: bool,
    **chosen: str | datetime | None,
) -> int:
    """Cancel pending deliveries.

    Deliveries in flight and finished ones stay as they are. Exits 1 if nothing matches.
    """
    if not delivery_ids and all(value is None for value in chosen.values()):
        raise click.UsageError(
            "cancel needs delivery ids or a filter: --subscription, --message, --event or --since"
        )
    ids = delivery_ids or None
    with find_app(app_path) as app:
        query = queried(ids, state=None, **chosen).only((DeliveryState.PENDING,))  # type: ignore[arg-type]
        with progress_bar("Cancelling", app.store.count(query)) as progress:
            count = app.cancel(ids, reason=reason, progress=progress, **chosen)  # type: ignore[arg-type]
    if as_json:
        write_json([{"cancelled": count}])
    else:
        click.echo(f"Cancelled {counted(count, 'delivery', 'deliveries')}.")
    return 0 if count else 1
