"""`thorn subscriptions`: list them, pause and resume them, and rotate a secret."""

from __future__ import annotations

from typing import Any

import click

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import Amount, console, json_option, plain, write_json
from thorn_core.cli.history import Row, show_list
from thorn_core.signatures import is_private
from thorn_core.subscriptions import LONGEST_OVERLAP
from thorn_core.values import Subscription


@click.group(invoke_without_command=True)
@click.option("--owner", help="Only subscriptions of this owner.")
@json_option
@click.pass_context
def subscriptions(context: click.Context, owner: str | None, *, as_json: bool) -> None:
    """List subscriptions; pause or resume one, or rotate its secret."""
    if context.invoked_subcommand is None:
        with find_app(context.obj) as app:
            _list(app, owner, as_json=as_json)


def _list(app: Thorn, owner: str | None, *, as_json: bool) -> None:
    found = app.subscriptions(owner=owner)
    if as_json:
        write_json(
            {
                "id": s.id,
                "events": s.events,
                "url": s.url,
                "owner": s.owner,
                "enabled": s.enabled,
                "paused": s.paused,
                "disabled_reason": s.disabled_reason,
                "created_at": s.created_at.isoformat(),
            }
            for s in found
        )
        return
    rows = (
        Row(
            (", ".join(s.events), s.owner, _state(s)),
            (f"to {s.url}", s.disabled_reason and f"disabled: {s.disabled_reason}", s.id),
        )
        for s in found
    )
    show_list(("events", "owner", "state"), rows, "No subscriptions.")


def _state(subscription: Subscription) -> str:
    if not subscription.enabled:
        return "disabled"
    return "paused" if subscription.paused else "enabled"


@subscriptions.command()
@click.argument("subscription_id", metavar="SUBSCRIPTION")
@click.pass_obj
def pause(app_path: Any, subscription_id: str) -> None:
    """Hold the deliveries of a subscription. Exits 1 if it does not exist."""
    with find_app(app_path) as app:
        app.pause(subscription_id)
    click.echo("Paused. Its deliveries are held until you resume it.")


@subscriptions.command()
@click.argument("subscription_id", metavar="SUBSCRIPTION")
@click.pass_obj
def resume(app_path: Any, subscription_id: str) -> None:
    """Release the deliveries that a paused subscription holds. Exits 1 if it does not exist."""
    with find_app(app_path) as app:
        app.resume(subscription_id)
    click.echo("Resumed.")


@subscriptions.command()
@click.argument("subscription_id", metavar="SUBSCRIPTION")
@click.option("--secret", help="The new secret. Without it, one is generated and shown.")
@click.option(
    "--overlap",
    type=Amount(0, LONGEST_OVERLAP),
    help="Seconds that the old secrets keep signing; 0 revokes them immediately.",
)
@json_option
@click.pass_obj
def rotate(
    app_path: Any,
    subscription_id: str,
    secret: str | None,
    overlap: float | None,
    *,
    as_json: bool,
) -> None:
    """Give a subscription a new secret. Exits 1 if it does not exist."""
    with find_app(app_path) as app:
        rotated = app.rotate_secret(subscription_id, secret, overlap=overlap)
    shared = next((s for s in rotated.secrets if not is_private(s)), None)
    until = max(rotated.secret_expiry.values(), default=None)
    shown = {
        "id": rotated.id,
        "secret": shared,
        "public_key": rotated.public_key,
        "former_secrets_until": until and until.isoformat(),
    }
    if as_json:
        write_json([shown])
        return
    out = console()
    for name, value in (("Secret", shared), ("Public key", rotated.public_key)):
        if value is not None:
            out.print(plain(f"{name}: {value}"), soft_wrap=True)
    if until is None:
        out.print("The old secrets are revoked.")
    else:
        out.print(f"The old secrets keep signing until {until.astimezone():%Y-%m-%d %H:%M:%S}.")
