"""A worker in its own process, for the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

# Seconds to wait for a worker to exit.
PATIENCE = 15.0


class WorkerProcess:
    """Runs `thorn --app … worker`; a context manager that stops it.

    Args:
        app: `module:attribute` of its app.
        url: Its store, passed to the app as THORN_STORE in the environment.
        log: File for its output.
    """

    def __init__(self, app: str, url: str, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "thorn_core.cli", "--app", app, "worker"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "THORN_STORE": url},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Send SIGTERM and wait for the process to exit.

        Returns:
            Its exit code.
        """
        self._process.terminate()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

    def kill(self) -> None:
        """Send SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait()
