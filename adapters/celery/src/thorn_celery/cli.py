"""`thorn stats`, with the queues of the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from thorn_celery.dispatcher import CeleryDispatcher
from thorn_celery.queues import BrokerError, depths_of
from thorn_core.cli import find_app
from thorn_core.cli.common import console, one_line, write_json


class StatsWithQueues(click.Command):
    """The command `stats`, which also shows queues if the dispatcher is `celery`.

    Args:
        stats: The command to extend.
    """

    def __init__(self, stats: click.Command) -> None:
        super().__init__(stats.name, params=stats.params, help=stats.help)
        self._stats = stats

    def invoke(self, ctx: click.Context) -> Any:
        """Show the command's output, then the queues."""
        with find_app(ctx.obj) as app:
            ctx.obj = lambda: app
            result = self._stats.invoke(ctx)
            if isinstance(app.dispatcher(), CeleryDispatcher):
                show(app, as_json=ctx.params.get("as_json", False))
        return result


def show(app: Any, *, as_json: bool) -> None:
    """Show the number of waiting tasks in each queue."""
    depths: Mapping[str, int] | None
    try:
        depths, trouble = depths_of(app), None
    except BrokerError as error:
        depths, trouble = None, str(error)
    if as_json:
        write_json([{"queues": depths, "error": trouble} if trouble else {"queues": depths}])
        return
    out = console()
    out.print()
    if depths is None:
        out.print(one_line(trouble))
    for name, depth in (depths or {}).items():
        out.print(one_line(f"tasks in queue {name}: {depth:,}"))
