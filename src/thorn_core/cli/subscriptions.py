"""`thorn subscriptions`: list them, and rotate a secret."""

from __future__ import annotations

from typing import Any

import click

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import Amount, console, json_option, plain, write_json
from thorn_core.cli.history import Row, show_list
from thorn_core.signatures import is_private
from thorn_core.subscriptions import LONGEST_OVERLAP


@click.group(invoke_without_command=True)
@click.option("--owner", help="Only subscriptions of this owner.")
@json_option
@click.pass_context
def subscriptions(context: click.Context, owner: str | None, *, as_json: bool) -> None:
    """List subscriptions, or rotate the secret of one."""
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
                "disabled_reason": s.disabled_reason,
                "created_at": s.created_at.isoformat(),
            }
            for s in found
        )
        return
    rows = (
        Row(
            (", ".join(s.events), s.owner, "yes" if s.enabled else "no"),
            (f"to {s.url}", s.disabled_reason and f"disabled: {s.disabled_reason}", s.id),
        )
        for s in found
    )
    show_list(("events", "owner", "enabled"), rows, "No subscriptions.")


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
