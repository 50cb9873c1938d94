"""`thorn send`: send a message, by the user's app or to one URL."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from thorn_core.app import Thorn
from thorn_core.cli.common import console, find_app, write_json
from thorn_core.events import Receipt
from thorn_core.recipients import allow_cidr_network
from thorn_core.settings import Settings
from thorn_core.signatures import check_secret

LOCAL = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


@click.command()
@click.argument("event")
@click.argument("data", default="{}")
@click.option("--url", help="Send to this URL, without an app.")
@click.option("--secret", help="Sign with this secret.")
@click.option("--sender", help="Id of the user or tenant it is about.")
@click.option("--allow-local", is_flag=True, help="Let --url be on this machine or network.")
@click.option("--wait", default=30.0, show_default=True, help="Seconds to wait for the delivery.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each delivery.")
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

    Exits 1 if a recipient did not take it.
    """
    payload = _payload(data)
    if url is not None:
        app = _app_for(url, secret, allow_local=allow_local)
        dispatcher = "inline"
    else:
        app, dispatcher = find_app(app_path), None
    with app:
        receipt = app.send(event, payload, sender=sender)
        delivered = bool(receipt) if dispatcher == "inline" else receipt.wait(wait)
        _show(app, receipt, as_json=as_json)
    return 0 if delivered else 1


def _payload(data: str) -> Any:
    if data == "-":
        data = sys.stdin.read()
    elif data.startswith("@"):
        try:
            data = Path(data[1:]).read_text("utf-8")
        except OSError as error:
            raise click.UsageError(f"{data[1:]} can't be read: {error.strerror}") from error
    try:
        return json.loads(data)
    except ValueError as error:
        raise click.UsageError(f"DATA is no JSON: {error}") from error


def _app_for(url: str, secret: str | None, *, allow_local: bool) -> Thorn:
    """An app with one static subscriber, whose URL must be allowed."""
    settings = Settings.from_mapping(os.environ)
    validators = settings.recipient_validators
    if allow_local:
        # Ports and protocols are the user's own, too.
        validators = (allow_cidr_network(*LOCAL),)
    settings = settings.evolve(
        recipient_validators=validators, retry=False, dispatcher="inline", subscribers={}
    )
    app = Thorn(settings=settings)
    app.subscribe("*", url, secret=None if secret is None else check_secret(secret))
    return app


def _show(app: Thorn, receipt: Receipt, *, as_json: bool) -> None:
    rows = [
        {
            "delivery": delivery.id,
            "recipient": delivery.recipient,
            "state": str(delivery.state),
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
    out.print(f"Message [bold]{receipt.message.id}[/], {len(rows)} deliveries")
    table = Table("recipient", "state", "attempts", "answer", box=None, pad_edge=False)
    for row in rows:
        attempts: list[dict[str, Any]] = row["attempts"]  # type: ignore[assignment]
        answers = [str(a["status"] or a["error"]) for a in attempts]
        table.add_row(
            str(row["recipient"]),
            str(row["state"]),
            ", ".join(answers),
            attempts[-1]["body"][:200] if attempts else str(row["reason"]),
        )
    if rows:
        out.print(table)
