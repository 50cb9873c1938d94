"""`thorn replay`: send deliveries again."""

from __future__ import annotations

from typing import Any

import click

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import counted, json_option, progress_bar, write_json
from thorn_core.cli.criteria import final_criteria
from thorn_core.history import queried
from thorn_core.values import DeliveryState

# The states to replay by default.
UNDELIVERED = (str(DeliveryState.FAILED), str(DeliveryState.CANCELLED))


@click.command()
@click.argument("delivery_ids", nargs=-1, metavar="[DELIVERY]...")
@final_criteria
@click.option(
    "--missing",
    is_flag=True,
    help="Also deliver messages the subscription never got; needs --subscription, --since.",
)
@json_option
@click.pass_obj
def replay(
    app_path: str | None,
    /,
    delivery_ids: tuple[str, ...],
    states: tuple[str, ...],
    *,
    missing: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Send failed and cancelled deliveries again.

    Replays the given deliveries in any final state, or all failed and cancelled ones that
    match the filters.
    Exits 1 if nothing matches.
    """
    if not delivery_ids and not states and all(value is None for value in chosen.values()):
        raise click.UsageError(
            "replay needs delivery ids or a filter: --subscription, --message, --event,"
            " --state or --since"
        )
    states_chosen = states or (None if delivery_ids else UNDELIVERED)
    with find_app(app_path) as app:
        count = _replay(app, delivery_ids, states_chosen, chosen, missing=missing)
    if as_json:
        write_json([{"replayed": count}])
    else:
        click.echo(f"Replayed {counted(count, 'delivery', 'deliveries')}.")
    return 0 if count else 1


def _replay(
    app: Thorn,
    ids: tuple[str, ...],
    states: tuple[str, ...] | None,
    chosen: dict[str, Any],
    *,
    missing: bool,
) -> int:
    query = queried(ids or None, state=states, **chosen)
    # The number of missing messages isn't known in advance.
    total = None if missing else app.store.count(query.only_finished())
    with progress_bar("Replaying", total) as progress:
        return app.replay(ids or None, state=states, missing=missing, **chosen, progress=progress)
