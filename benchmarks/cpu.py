"""Processor time that processes have used, as Linux tells it in /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def used_by_group(group: int) -> float:
    """Seconds of the processes of a group that are alive, and of children they have waited for."""
    return sum(ticks for name, of, ticks in _processes() if of == group) / TICKS


def used_by_name(name: str) -> float:
    """Seconds of all processes of a name, and of children they have waited for."""
    return sum(ticks for called, _, ticks in _processes() if called == name) / TICKS


def _processes() -> Iterator[tuple[str, int, int]]:
    """Name, group and ticks of each process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            # It has ended.
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        yield name, int(fields[2]), sum(map(int, fields[11:15]))
