"""Programs that are run to their end, or interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

TIMEOUT = 60


def heed_interrupts():
    """In a child before it becomes another program: let SIGINT end it.

    Where the tests run in the background it is ignored, by them and all that they start.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(where, environment, *command):
    """Run a Python program in a folder; gives what it wrote, and fails if it does."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
