"""What the tests share: brokers, workers as processes, and what became of what was sent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from celery import Celery
from celery_program import Setup, make
from kombu import Connection

from thorn_core import Event, Thorn

BROKERS = {
    "rabbitmq": os.environ.get("THORN_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
    "redis": os.environ.get("THORN_TEST_REDIS", "redis://127.0.0.1:6379/0"),
}
TIMEOUT = 60.0
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@attrs.frozen
class Broker:
    """Names of a test's own in a broker.

    Attributes:
        kind: `rabbitmq` or `redis`.
        url: Its URL.
        name: What queues are named after.
    """

    kind: str
    url: str
    name: str


@contextmanager
def broker_of(kind: str) -> Iterator[Broker]:
    """A broker; what a test leaves there is removed."""
    broker = Broker(kind, BROKERS[kind], f"thorn_test_{uuid.uuid4().hex[:12]}")
    try:
        with Connection(broker.url, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1)
    except Exception as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{kind} is needed: {error}")
        pytest.skip(f"{kind} isn't there: {error}")
    try:
        yield broker
    finally:
        _clean(broker)


def _clean(broker: Broker) -> None:
    if broker.kind == "redis":
        import redis

        with redis.Redis.from_url(broker.url) as client:
            for key in client.scan_iter(f"{broker.name}*", count=1000):
                client.delete(key)
        return
    with Connection(broker.url) as connection:
        for name in ("", "_bills", "_retries"):
            with connection.channel() as channel:
                channel.queue_delete(queue=broker.name + name)
                channel.exchange_delete(broker.name + name)


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
        return Event("order.paid", dispatcher="outbox", app=self.thorn)

    def worker(self, *options: str) -> WorkerProcess:
        options = options or ("-P", "prefork", "-c", "2")
        return WorkerProcess("celery_program:celery", self.environment(), *options)

    def environment(self) -> dict[str, str]:
        """Of the program's other processes."""
        return {**self.setup.environment(), "PYTHONPATH": str(Path(__file__).parent)}

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
