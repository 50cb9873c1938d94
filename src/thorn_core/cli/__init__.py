"""The `thorn` command (extra `cli`).

A plugin adds commands by the hook `thorn_cli`; one that needs the user's app finds it by what
`--app` says, which click passes as the object::

    @click.command()
    @click.pass_obj
    def hello(app_path):
        with find_app(app_path) as app:
            click.echo(f"hello from {app}")
"""

from __future__ import annotations

import sys

from thorn_core.cli.app import find_app


def main() -> None:
    """Run the command; say what to install where click or rich is missing."""
    try:
        import click
        import rich
    except ImportError:
        sys.stderr.write(
            "the thorn command needs click and rich; run: pip install 'thorn-core[cli]'\n"
        )
        sys.exit(2)
    del click, rich
    from thorn_core.cli.group import run

    sys.exit(run(sys.argv[1:]))


__all__ = ["find_app", "main"]
