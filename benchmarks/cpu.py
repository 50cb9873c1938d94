"""Processor time of processes, from /proc on Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def used_by_group(group: int) -> float:
    """Return the CPU seconds used by a group's running processes and their reaped children."""
    return sum(ticks for name, of, ticks in _processes() if of == group) / TICKS


def used_by_name(name: str) -> float:
    """Return the seconds of all processes with a name, and of their reaped children."""
    return sum(ticks for called, _, ticks in _processes() if called == name) / TICKS


def _processes() -> Iterator[tuple[str, int, int]]:
    """Yield name, group and ticks of each process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            # The process has ended.
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        yield name, int(fields[2]), sum(map(int, fields[11:15]))
