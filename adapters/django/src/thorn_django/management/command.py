"""The base of the management commands: each runs a command of `thorn` for the project's app."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.management.base import BaseCommand, CommandError, CommandParser

from thorn_django import get_app

if TYPE_CHECKING:
    import click


class ThornCommand(BaseCommand):
    """A command of `thorn` with Django's options in addition; keeps its exit codes.

    From Python, `call_command("thorn_purge", older_than="30d", yes=True)` does the same; an exit
    code other than 0 is a `CommandError` with that `returncode`.

    Attributes:
        carried: The name of the `thorn` command.
    """

    carried: ClassVar[str]
    # Django's options.
    _called_from_command_line: bool

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's arguments."""
        try:
            import click  # noqa: F401
            import rich  # noqa: F401
        except ImportError:
            parser.error(
                f"thorn_{self.carried} needs click and rich; run: pip install 'thorn-django[cli]'"
            )
        command = _carried(self.carried)
        parser.description = (command.help or "").partition("\f")[0].strip()
        for parameter in command.params:
            _add(parser, parameter)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        import click

        from thorn_core.cli.group import run_for

        if self._called_from_command_line:
            _choose_colors(options)
        given = list(_given(_carried(self.carried), options))
        try:
            with (
                redirect_stdout(options.get("stdout") or sys.stdout),
                redirect_stderr(options.get("stderr") or sys.stderr),
            ):
                code = run_for(get_app, self.carried, given)
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error
        except click.Abort as error:
            raise CommandError("stopped", returncode=130) from error
        if code and self._called_from_command_line:
            sys.exit(code)
        if code:
            raise CommandError(f"thorn {self.carried} exited with code {code}", returncode=code)


def _carried(name: str) -> click.Command:
    from thorn_core.cli.group import group

    return group.commands[name]


def _add(parser: CommandParser, parameter: click.Parameter) -> None:
    """Add a click parameter to a parser; click converts and checks the value."""
    import click

    if not isinstance(parameter, click.Option):
        parser.add_argument(_dest(parameter), nargs="*", metavar=_dest(parameter).rstrip("s"))
        return
    words = (parameter.help or "").replace("%", "%%")
    if parameter.show_default:
        words = f"{words} [default: {parameter.default}]".strip()
    more: dict[str, Any] = {}
    if parameter.is_flag:
        more["action"] = "store_true"
    elif parameter.multiple:
        more["action"] = "append"
    if isinstance(parameter.type, click.Choice):
        more["choices"] = list(parameter.type.choices)
    parser.add_argument(*parameter.opts, dest=_dest(parameter), help=words, **more)


def _given(command: click.Command, options: dict[str, Any]) -> Iterator[str]:
    """Return the arguments for the given options; click applies defaults to the others."""
    for parameter in sorted(command.params, key=lambda p: p.param_type_name == "argument"):
        value = options[_dest(parameter)]
        if parameter.param_type_name == "argument":
            yield from ("--", *map(str, value))
        elif value is True:
            yield parameter.opts[0]
        elif value is not None and value is not False:
            several = value if isinstance(value, list | tuple) else [value]
            yield from (f"{parameter.opts[0]}={one}" for one in several)


def _dest(parameter: click.Parameter) -> str:
    return parameter.opts[0].lstrip("-").replace("-", "_")


def _choose_colors(options: dict[str, Any]) -> None:
    """Translate Django's colour options to the environment variables of rich."""
    for option, variable in (("no_color", "NO_COLOR"), ("force_color", "FORCE_COLOR")):
        if options[option]:
            os.environ[variable] = "1"
