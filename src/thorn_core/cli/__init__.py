"""The `thorn` command (extra `cli`).

A plugin adds commands by the hook `thorn_cli`. A command finds the user's app by the value of
`--app`, which click passes as the context's object::

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
    """Run the command; if click or rich is missing, print how to install them."""
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
