"""A worker in a process of its own, as the demo needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

# Seconds that a worker has to end.
PATIENCE = 15.0


class WorkerProcess:
    """`thorn --app … worker`, started; a context manager that ends it.

    Args:
        app: `module:attribute` of its app.
        url: Its store, which the app finds as THORN_STORE in the environment.
        log: A file that gets what it writes.
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
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Tell it to end (SIGTERM), and wait until it has.

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
        """End it at once (SIGKILL), as a crash or the kernel would."""
        self._process.kill()
        self._process.wait()
