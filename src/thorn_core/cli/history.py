"""`thorn subscriptions`, `deliveries`, `replay`, `stats`: what there is, and once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from thorn_core.app import Thorn
from thorn_core.cli.common import Amount, console, counted, find_app, plain, write_json
from thorn_core.values import DeliveryState, Subscription

F = TypeVar("F", bound=Callable[..., Any])
json_option = click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
STATES = click.Choice([str(state) for state in DeliveryState])
# What a replay is for, where no state is asked for.
FAILED = (str(DeliveryState.EXHAUSTED), str(DeliveryState.DISCARDED))
# Deliveries replayed at once: few enough for the bar to move, many enough not to be slower.
STEP = 100


class Ago(click.ParamType[datetime]):
    """A time: ISO 8601, or how long ago as `90s`, `15m`, `2h`, `3d`."""

    name = "time"
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}  # noqa: RUF012 - constant

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        try:
            if value[:-1].isdecimal() and value[-1] in self.units:
                return datetime.now(UTC) - timedelta(**{self.units[value[-1]]: int(value[:-1])})
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time; write 2026-03-01T12:00, 90s, 15m, 2h or 3d", param, ctx
            )


def criteria(command: F) -> F:
    """The options that choose deliveries."""
    for option in (
        click.option("--subscription", "subscription_id", help="Only to this subscription."),
        click.option("--message", "message_id", help="Only of this message."),
        click.option("--event", help="Only of events that match this pattern."),
        click.option("--state", "states", multiple=True, type=STATES, help="Only in this state."),
        click.option("--since", type=Ago(), help="Only since: 2026-03-01T12:00, 15m, 2h, 3d."),
    ):
        command = option(command)
    return command


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> None:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(plain, row))
    if table.row_count:
        console().print(table)
    else:
        console().print(empty)


@click.command()
@click.option("--owner", help="Only this owner's.")
@json_option
@click.pass_obj
def subscriptions(app_path: str | None, owner: str | None, *, as_json: bool) -> None:
    """List subscriptions."""
    with find_app(app_path) as app:
        found = app.subscriptions(owner=owner)
        if as_json:
            write_json(
                {
                    "id": s.id,
                    "events": s.events,
                    "url": s.url,
                    "owner": s.owner,
                    "enabled": s.enabled,
                    "disabled_reason": s.disabled_reason,
                    "created_at": s.created_at.isoformat(),
                }
                for s in found
            )
            return
        rows = (
            (s.id, ", ".join(s.events), s.url, s.owner, "yes" if s.enabled else _why_not(s))
            for s in found
        )
        _table(("id", "events", "url", "owner", "enabled"), rows, "There are no subscriptions.")


def _why_not(subscription: Subscription) -> str:
    reason = subscription.disabled_reason
    return f"no: {reason}" if reason else "no"


@click.command()
@criteria
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1))
@json_option
@click.pass_obj
def deliveries(
    app_path: str | None, /, limit: int, states: tuple[str, ...], *, as_json: bool, **chosen: Any
) -> None:
    """List deliveries, the oldest first."""
    with find_app(app_path) as app:
        found = islice(app.deliveries(state=states or None, **chosen), limit)
        if as_json:
            write_json(
                {
                    "id": d.id,
                    "event": d.event,
                    "recipient": d.recipient,
                    "message": d.message_id,
                    "subscription": d.subscription_id,
                    "state": str(d.state),
                    "attempts": d.attempt_count,
                    "due_at": d.due_at.isoformat(),
                    "reason": d.reason,
                }
                for d in found
            )
            return
        rows = ((d.event, d.recipient, d.state, d.attempt_count, d.reason, d.id) for d in found)
        columns = ("event", "recipient", "state", "attempts", "reason", "id")
        _table(columns, rows, "There are no such deliveries.")


@click.command()
@click.argument("delivery_ids", nargs=-1)
@criteria
@json_option
@click.pass_obj
def replay(
    app_path: str | None,
    /,
    delivery_ids: tuple[str, ...],
    states: tuple[str, ...],
    *,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Deliver once more: these deliveries, or all that failed and meet the criteria.

    Exits 1 if there was nothing to replay.
    """
    with find_app(app_path) as app:
        if delivery_ids:
            count = _replay(app, delivery_ids, states or None, chosen)
        elif states or any(criterion is not None for criterion in chosen.values()):
            failed = states or FAILED
            ids = tuple(delivery.id for delivery in app.deliveries(state=failed, **chosen))
            count = _replay(app, ids, failed, chosen)
        else:
            raise click.UsageError(
                "replay needs to know what: give ids of deliveries, or --subscription, --message,"
                " --event, --state or --since"
            )
    if as_json:
        write_json([{"replayed": count}])
    else:
        click.echo(f"Replayed {counted(count, 'delivery', 'deliveries')}.")
    return 0 if count else 1


def _replay(
    app: Thorn, ids: tuple[str, ...], state: tuple[str, ...] | None, chosen: Mapping[str, Any]
) -> int:
    """Replay in steps that a person at a terminal can follow."""
    count = 0
    progress_on = Console(stderr=True)
    with Progress(
        console=progress_on, transient=True, disable=not progress_on.is_terminal
    ) as progress:
        task = progress.add_task("Replaying", total=len(ids))
        for start in range(0, len(ids), STEP):
            step = ids[start : start + STEP]
            count += app.replay(step, state=state, **chosen)
            progress.advance(task, len(step))
    return count


@click.command()
@click.option(
    "--hours",
    default=1.0,
    show_default=True,
    type=Amount(0, 87_600, min_open=True),
    help="What attempts are counted in.",
)
@json_option
@click.pass_obj
def stats(app_path: str | None, hours: float, *, as_json: bool) -> None:
    """Show what the store holds, and how attempts went lately."""
    with find_app(app_path) as app:
        found = app.stats(window=timedelta(hours=hours))
    states = {str(state): count for state, count in found.deliveries.items()}
    if as_json:
        write_json(
            [
                {
                    "subscriptions": found.subscriptions,
                    "messages": found.messages,
                    "unrouted": found.unrouted,
                    "deliveries": states,
                    "attempts": found.attempts,
                    "window": found.window.total_seconds(),
                    "latency": found.latency,
                    "recipients": found.recipients,
                }
            ]
        )
        return
    counts = (
        ("subscriptions", found.subscriptions),
        ("messages", found.messages),
        ("  not yet routed", found.unrouted),
        *((f"deliveries {name.replace('_', ' ')}", count) for name, count in states.items()),
        (f"attempts in {hours:g} h", found.attempts),
    )
    _table(("what", "count"), counts, "")
    everyone = {"all recipients": found.latency, **found.recipients}
    rows = (
        (name, *(f"{1000 * seconds:.1f} ms" for seconds in latency.values()))
        for name, latency in everyone.items()
        if latency
    )
    _table(("latency", "50 %", "95 %", "99 %"), rows, "No attempt got a response in that time.")
