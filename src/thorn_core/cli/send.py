"""`thorn send`: send a message, by the user's app or to one URL."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import Amount, console, counted, plain, write_json
from thorn_core.cli.origins import Origins
from thorn_core.errors import SecurityError, ThornError
from thorn_core.receipts import Receipt
from thorn_core.recipients import METADATA_ADDRESSES, block_cidr_network
from thorn_core.recipients.validators import EnsurePort
from thorn_core.settings import Settings
from thorn_core.values import DeliveryState

# Loopback and private networks; link-local addresses and metadata services stay refused.
LOCAL = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
WAY_OUT = "Pass --allow-local to allow this machine, private networks and any port"


@click.command()
@click.argument("event")
@click.argument("data", default="{}")
@click.option("--url", help="Send to this URL; needs no app.")
@click.option("--secret", help="Secret that signs requests to --url (default: a new one).")
@click.option("--sender", help="Id of the user or tenant that the message is about.")
@click.option("--allow-local", is_flag=True, help="Allow a --url on this machine or network.")
@click.option(
    "--wait",
    default=30.0,
    show_default=True,
    type=Amount(0, 86_400),
    help="Seconds to wait for deliveries to finish.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per delivery.")
@click.pass_obj
def send(
    app_path: str | None,
    event: str,
    data: str,
    url: str | None,
    secret: str | None,
    sender: str | None,
    wait: float,
    *,
    allow_local: bool,
    as_json: bool,
) -> int:
    """Send a message of EVENT with the payload DATA: JSON, @FILE, or - for standard input.

    Exits 1 if a delivery fails.
    """
    if url is None and (secret is not None or allow_local):
        raise click.UsageError("--secret and --allow-local need --url")
    payload = _payload(data)
    if url is None and not app_path:
        raise click.UsageError(
            "send needs your app (thorn --app module:attribute …, or THORN_APP) or a recipient"
            " (--url https://…)"
        )
    if url is not None:
        found: AbstractContextManager[Thorn] = _app_for(url, secret, allow_local=allow_local)
        dispatcher = "inline"
    else:
        found, dispatcher = find_app(app_path), None
    with found as app:
        receipt = app.send(event, payload, sender=sender)
        delivered = bool(receipt) if dispatcher == "inline" else receipt.wait(wait)
        _show(app, receipt, as_json=as_json)
        refused = any(
            (d.state is DeliveryState.CANCELLED and not d.attempt_count)
            or "an address that is refused" in (d.reason or "")
            for d in receipt.deliveries
        )
    if refused and url is not None and not allow_local:
        click.echo(f"The recipient was refused. {WAY_OUT}.", err=True)
    return 0 if delivered else 1


def _payload(data: str) -> Any:
    given: str | bytes = data
    if data == "-":
        given = sys.stdin.buffer.read()
    elif data.startswith("@"):
        try:
            given = Path(data[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"{data[1:]} cannot be read: {error.strerror}") from error
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"DATA is not valid JSON: {error}") from error


def _app_for(url: str, secret: str | None, *, allow_local: bool) -> Thorn:
    """Create an app with one static subscriber, after checking its URL."""
    settings = Settings.from_mapping(os.environ)
    if allow_local:
        # A local server is rarely on port 80; all other rules still apply.
        kept = [v for v in settings.recipient_validators if not isinstance(v, EnsurePort)]
        settings = settings.evolve(
            allowed_networks=(*settings.allowed_networks, *LOCAL),
            allowed_ports=(),
            recipient_validators=[*kept, block_cidr_network(*METADATA_ADDRESSES)],
        )
    settings = settings.evolve(retry=False, dispatcher="inline", subscribers={})
    app = Thorn(settings=settings)
    try:
        app.subscribe("*", url, secret=secret)
    except SecurityError as error:
        app.close()
        if allow_local:
            raise
        raise SecurityError(error.reason, f"{WAY_OUT}.") from error
    except ThornError:
        app.close()
        raise
    return app


def _show(app: Thorn, receipt: Receipt, *, as_json: bool) -> None:
    origins = Origins(app)
    rows: list[dict[str, Any]] = [
        {
            "delivery": delivery.id,
            "subscription": delivery.subscription_id,
            "origin": origins.of(delivery),
            "state": delivery.shown_state,
            "reason": delivery.reason,
            "attempts": [
                {
                    "at": attempt.at.isoformat(),
                    "status": attempt.status,
                    "error": attempt.error,
                    "duration": round(attempt.duration, 6),
                    "body": attempt.body.decode("utf-8", "replace"),
                }
                for attempt in app.attempts(delivery.id)
            ],
        }
        for delivery in receipt.deliveries
    ]
    if as_json:
        write_json({"message": receipt.message.id, **row} for row in rows)
        return
    out = console()
    out.print(
        f"Message [bold]{receipt.message.id}[/]: {counted(len(rows), 'delivery', 'deliveries')}"
    )
    table = Table(
        "origin", "state", "attempts", "response", box=None, pad_edge=False, header_style="bold"
    )
    for row in rows:
        attempts: list[dict[str, Any]] = row["attempts"]
        answers = [str(a["status"] or a["error"]) for a in attempts]
        table.add_row(
            plain(row["origin"] or row["subscription"]),
            plain(row["state"]),
            plain(", ".join(answers)),
            plain(attempts[-1]["body"][:200] if attempts else row["reason"]),
        )
    if rows:
        out.print(table)
