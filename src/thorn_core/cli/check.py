"""`thorn check`: find problems in an app's configuration."""

from __future__ import annotations

import attrs
import click

from thorn_core.app import Thorn
from thorn_core.checks import Finding, findings
from thorn_core.cli.app import find_app
from thorn_core.cli.common import console, counted, json_option, one_line, write_json
from thorn_core.errors import StoreError


@click.command()
@json_option
@click.pass_obj
def check(app_path: str | None, *, as_json: bool) -> int:
    """Check the app's settings, events and store.

    Exits 1 if there are problems, 2 if the settings are invalid.
    """
    with find_app(app_path) as app:
        found = [*findings(app), *_store(app)]
    if as_json:
        write_json(attrs.asdict(finding) for finding in found)
        return bool(found)
    out = console()
    for finding in found:
        out.print(one_line(finding.message), style="bold", soft_wrap=True)
        out.print("  ", one_line(finding.hint), "\n", sep="", soft_wrap=True)
    out.print(counted(len(found), "problem", "problems") if found else "No problems found.")
    return bool(found)


def _store(app: Thorn) -> list[Finding]:
    try:
        app.store.check()
    except StoreError as error:
        hint = "Set up the store or fix the connection, then check again."
        message = f"The store can't be used: {error}."
        return [Finding(name="store-not-ready", setting=None, message=message, hint=hint)]
    return []
