"""`flask thorn …`: the commands of `thorn` for the current Flask app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from thorn_core import ThornError


class ThornCommands(click.Group):
    """The command group; it loads the commands, which need rich, on demand.

    Args:
        name: The group's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, help="Deliver and inspect webhooks.")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(_carried(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        return _carried(ctx).get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command in the context of the Flask app, and exit with its exit code."""
        _carried(ctx)
        from thorn_core.cli.group import Failure

        app = _app(ctx)
        ctx.with_resource(app.app_context())
        ctx.obj = lambda: app.extensions["thorn"]
        try:
            code = super().invoke(ctx)
        except ThornError as error:
            raise Failure(error) from error
        except (click.Abort, KeyboardInterrupt):
            click.echo("stopped", err=True)
            code = 130
        if code:
            ctx.exit(code)


def _app(ctx: click.Context) -> Flask:
    info = ctx.find_object(ScriptInfo)
    if info is None:
        raise click.UsageError("this is a Flask command: flask --app shop thorn …")
    return info.load_app()


def _carried(ctx: click.Context) -> Mapping[str, click.Command]:
    try:
        from thorn_core.cli.group import commands_of
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"flask thorn needs {error.name}; run: pip install 'thorn-flask[cli]'"
        ) from error
    return commands_of(_app(ctx).extensions["thorn"])
