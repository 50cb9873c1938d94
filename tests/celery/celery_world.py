"""What the tests share: workers as processes, and what became of what was sent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from celery import Celery
from celery_program import Setup, make

from thorn_core import Event, Thorn

TIMEOUT = 60.0
# Where other processes find `celery_program`, and what it uses.
HERE = Path(__file__).parent
PYTHONPATH = f"{HERE}{os.pathsep}{HERE.parent / 'integration'}"
# Each broker and each database once, in the gate too.
both = pytest.mark.parametrize(
    "pair", [("rabbitmq", "postgresql"), ("redis", "mariadb")], ids="-".join, indirect=True
)
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class WorkerProcess:
    """`celery worker`, started and ready; a context manager that ends it.

    Args:
        app: Where its Celery app is.
        environment: Of the process.
        *options: More of the command's.
    """

    def __init__(self, app: str, environment: Mapping[str, str], *options: str) -> None:
        command = ["-A", app, "worker", *options, "--loglevel", "INFO", *QUIET]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "celery", *command],
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.text = ""
        self.code: int | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        try:
            self.wait_for(r"\bready\.")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.code is None:
            self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.text += line
                self._changed.notify_all()

    def wait_for(self, pattern: str) -> None:
        """Wait until it has written something."""
        with self._changed:
            assert self._changed.wait_for(lambda: re.search(pattern, self.text), TIMEOUT), self.text

    def stop(self) -> float:
        """Tell it to end (SIGTERM), and wait; returns the seconds that took."""
        began = time.monotonic()
        self._process.terminate()
        try:
            self.code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._finish()
        return time.monotonic() - began

    def kill(self) -> None:
        """End it and its children at once (SIGKILL)."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.code = self._process.wait()
        self._finish()

    def children(self) -> list[int]:
        """The processes of its pool."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in path.read_text("ascii").split()]

    def _finish(self) -> None:
        self._thread.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()


@attrs.define
class World:
    """A program that sends, and what its workers need to know.

    Attributes:
        setup: What it is made of.
        thorn: Its Thorn.
        celery: Its Celery app.
    """

    setup: Setup
    thorn: Thorn
    celery: Celery

    @property
    def untold(self) -> Event:
        """What is sent as if its task were lost."""
        return Event("order.untold", dispatcher="outbox", app=self.thorn)

    def worker(self, *options: str) -> WorkerProcess:
        options = options or ("-P", "prefork", "-c", "2")
        return WorkerProcess("celery_program:celery", self.environment(), *options)

    def environment(self) -> dict[str, str]:
        """Of the program's other processes."""
        return {**self.setup.environment(), "PYTHONPATH": PYTHONPATH}

    def sweep(self, **options: object) -> None:
        """What beat does."""
        self.celery.tasks["thorn.sweep"].apply_async(retry=False, **options)

    def settle(self, number: int, *, sweep: bool = False) -> None:
        """Wait until there are so many deliveries, all of them delivered."""

        def done() -> bool:
            counts = self.thorn.stats().deliveries
            return counts["delivered"] == sum(counts.values()) == number

        until = time.monotonic() + TIMEOUT
        while not self.thorn.wait_until(done, 1.0):
            assert time.monotonic() < until, self.thorn.stats()
            if sweep:
                self.sweep()


@contextmanager
def world_of(setup: Setup) -> Iterator[World]:
    """A program, with its tables."""
    thorn, celery = make(setup)
    try:
        thorn.store.create()
        yield World(setup, thorn, celery)
    finally:
        thorn.close()
        celery.close()
