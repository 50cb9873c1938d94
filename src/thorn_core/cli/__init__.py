"""The `thorn` command (extra `cli`)."""

from __future__ import annotations

import sys


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


__all__ = ["main"]
