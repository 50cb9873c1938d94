"""Start files of this directory as processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

# Maximum seconds of a process.
DEADLINE = 120


@contextlib.contextmanager
def program(name: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program; stop it and its children at the end of the block, or after a timeout.

    Args:
        name: Name of the file.
        *arguments: Arguments of its command line.
        **variables: Variables of its environment.
    """
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(name)), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **variables},
    )

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    watchdog = threading.Timer(DEADLINE, end)
    watchdog.start()
    try:
        with process:
            try:
                yield process
            finally:
                end()
    finally:
        watchdog.cancel()


def output(name: str, *arguments: str, **variables: str) -> str:
    """Return the output of a program."""
    with program(name, *arguments, **variables) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    return said
