"""`python -m thorn_core.cli`: the `thorn` command."""

from thorn_core.cli import main

main()
