"""The `thorn` command group: its options, errors and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from thorn_core.app import Thorn
from thorn_core.cli.cancel import cancel
from thorn_core.cli.check import check
from thorn_core.cli.common import safe
from thorn_core.cli.demo import demo
from thorn_core.cli.erase import erase
from thorn_core.cli.history import attempts, deliveries
from thorn_core.cli.init_db import init_db
from thorn_core.cli.listen import listen
from thorn_core.cli.purge import purge
from thorn_core.cli.replay import replay
from thorn_core.cli.send import send
from thorn_core.cli.stats import stats
from thorn_core.cli.subscriptions import subscriptions
from thorn_core.cli.worker import worker
from thorn_core.errors import StoreSetupError, ThornError
from thorn_core.plugins import Plugins

EXIT_CODES = (
    "Exit codes: 0 success; 1 not delivered, not found or failed; 2 wrong usage or configuration,"
    " or a store that isn't set up; 130 interrupted by Ctrl-C."
)


class Group(click.Group):
    """Reports Thorn's errors as one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ThornError as error:
            raise Failure(error) from error


class Failure(click.ClickException):
    """A ThornError as an error of the command line."""

    def __init__(self, error: ThornError) -> None:
        super().__init__(safe(str(error)))
        self.error = error

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # depends on the error
        """2 for wrong usage or configuration, otherwise 1."""
        return 2 if isinstance(self.error, ValueError | StoreSetupError) else 1


@click.group(cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--app",
    "app_path",
    envvar="THORN_APP",
    metavar="MODULE:ATTRIBUTE",
    help="Your Thorn app, or a function that returns it (or set THORN_APP).",
)
@click.version_option(package_name="thorn-core", prog_name="thorn")
@click.pass_context
def group(context: click.Context, app_path: str | None) -> None:
    """Send webhooks, run workers, and inspect deliveries."""
    context.obj = app_path


for command in (
    *(demo, init_db, worker, listen, send),
    *(subscriptions, deliveries, attempts, replay, cancel, purge, erase, stats, check),
):
    group.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit code.
    """
    try:
        Plugins().hook.thorn_cli(group=group)
        result = group.main(list(arguments), prog_name="thorn", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return 130
    except ThornError as error:
        click.echo(safe(f"Error: {error}"), err=True)
        return 2
    return result if isinstance(result, int) else 0


def commands_of(app: Thorn) -> Mapping[str, click.Command]:
    """Return the commands for a framework's command line, including those of plugins.

    Each command finds the app by click's context object, a function that returns it: see
    `find_app`.

    Args:
        app: The app, whose plugins add commands.
    """
    carried = click.Group(commands=dict(group.commands))
    app.plugins.hook.thorn_cli(group=carried)
    return {name: command for name, command in carried.commands.items() if command is not demo}


def run_for(app: Callable[[], Thorn], name: str, arguments: Sequence[str]) -> int:
    """Run a command for a given app, without `--app`, for the command lines of frameworks.

    Args:
        app: Returns the app, which stays open.
        name: The command's name.
        arguments: The command's arguments.

    Returns:
        The exit code.

    Raises:
        click.ClickException: The command failed; it has the exit code.
        click.Abort: The user pressed Ctrl-C.
    """
    command = group.commands[name]
    try:
        result = command.main(list(arguments), prog_name=name, obj=app, standalone_mode=False)
    except ThornError as error:
        raise Failure(error) from error
    return result if isinstance(result, int) else 0
