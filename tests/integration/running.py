"""Programs that are run to their end."""

from __future__ import annotations

import os
import subprocess
import sys

TIMEOUT = 60


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
