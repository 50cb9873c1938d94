"""A run: processes are started, killed and replaced until enough has been written and delivered."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import attrs

from kills import programs
from kills.kit import Harm, Kit
from thorn_core import Attempt, Delivery, DeliveryState, Thorn

logger = logging.getLogger(__name__)

WRITERS = 2
WORKERS = 2
RECIPIENTS = {"fault.a": 0, "fault.b": 1, "fault.c": 2}
# Spread over what is to be done, so that a slow machine isn't killed more often than it can work.
FAULTS = 50
# Seconds in which something must have been written or delivered: many, since a busy machine takes
# most of a minute to start the programs.
PATIENCE = 240.0

PAGE = 400
MODULES = ("kills.programs", "httptools", "uvloop")

# Processes are forked by one that has imported everything, so that they begin at once.
_context = multiprocessing.get_context("forkserver")


@attrs.frozen(kw_only=True)
class Arrival:
    """A request that arrived at a recipient.

    Attributes:
        at: When, in seconds since 1970.
        recipient: Which.
        delivery_id: Its `Hook-Delivery`.
        message_id: Its `webhook-id`.
        key: What the writer called the message.
        worker: Who sent it.
        accepted: It was answered by a 200.
    """

    at: float
    recipient: int
    delivery_id: str
    message_id: str
    key: str
    worker: str
    accepted: bool


@attrs.frozen(kw_only=True)
class Outcome:
    """What is known at the end of a run.

    Attributes:
        truth: Message id to key and event of what was committed.
        arrivals: What the recipients saw.
        deliveries: What the store has.
        attempts: What the store has, by delivery.
        unrouted: How many messages the store has still to route.
        killed: When each worker that was killed was, in seconds since 1970.
        faults: How many there were of each kind.
        exits: Exit codes of the workers that were told to stop.
    """

    truth: Mapping[str, tuple[str, str]]
    arrivals: list[Arrival]
    deliveries: list[Delivery]
    attempts: Mapping[str, list[Attempt]]
    unrouted: int
    killed: Mapping[str, float]
    faults: Mapping[str, int]
    exits: list[int | None]


class Run:
    """One run.

    Args:
        kit: The store's.
        directory: For what the recipients write.
        seed: Of everything that is left to chance here.
        messages: How many are to be committed at least.
        rounds: How often each kind of harm is to be done at least.
    """

    def __init__(self, kit: Kit, directory: Path, *, seed: int, messages: int, rounds: int) -> None:
        self._kit = kit
        self._report = directory / "arrivals.json"
        self._rng = random.Random(seed)
        self._messages, self._rounds = messages, rounds
        self._started = self._progress = 0
        self._moved = time.monotonic()
        self._writers: dict[str, Any] = {}
        self._workers: dict[str, Any] = {}
        self._ready: dict[str, Any] = {}
        self._killed: dict[str, float] = {}
        self._harms: dict[str, Harm] = {
            "writer killed": self._kill_writer,
            "worker killed": self._kill_worker,
            **kit.harms(),
        }
        self._next_harms: list[str] = []
        self._faults = dict.fromkeys(self._harms, 0)

    def go(self) -> Outcome:
        """Do it all."""
        self._kit.prepare()
        self._import_once()
        try:
            with (
                self._recipients() as urls,
                self._kit.app(programs.settings(self._kit, "run")) as app,
            ):
                for pattern, number in RECIPIENTS.items():
                    app.subscribe([pattern, "fault.all"], urls[number])
                self._disturb(app)
                self._settle(app)
                exits = self._stop_workers()
            return self._outcome(exits)
        finally:
            for process in (*self._writers.values(), *self._workers.values()):
                process.kill()
                process.join()
            self._kit.close()

    # -- processes

    def _import_once(self) -> None:
        """Start the process that the others are forked by."""
        # One that is there has imported what another kit needed.
        forkserver._forkserver._stop()
        _context.set_forkserver_preload([*self._kit.modules, *MODULES])
        before = dict(os.environ)
        # It doesn't look for modules where this process does by itself.
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        # Who is killed can't report what it covered, and would only be slower.
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            os.environ.pop(name, None)
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    @contextmanager
    def _recipients(self) -> Iterator[list[str]]:
        listening = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in RECIPIENTS]
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}/hook" for each in listening]
        process = _context.Process(
            target=programs.receive, args=(listening, self._report, self._rng.getrandbits(32))
        )
        process.start()
        for each in listening:
            each.close()
        try:
            yield urls
        finally:
            process.terminate()
            process.join()

    def _start(self, kind: str, target: Callable[..., None], *more: Any) -> tuple[str, Any]:
        self._started += 1
        name = f"{kind}{self._started}"
        process = _context.Process(target=target, args=(self._kit, name, self._started, *more))
        process.start()
        return name, process

    def _fill_up(self, *, writing: bool) -> None:
        for name, process in (*self._writers.items(), *self._workers.items()):
            assert process.is_alive(), f"{name} ended by itself, with {process.exitcode}"
        while writing and len(self._writers) < WRITERS:
            name, process = self._start("writer", programs.write, self._rng.getrandbits(32))
            self._writers[name] = process
        while len(self._workers) < WORKERS:
            ours, theirs = _context.Pipe(duplex=False)
            name, process = self._start("worker", programs.work, theirs)
            theirs.close()
            self._workers[name] = process
            self._ready[name] = ours

    def _kill_writer(self, rng: random.Random) -> int:
        if not self._writers:
            return 0
        process = self._writers.pop(rng.choice(list(self._writers)))
        process.kill()
        process.join()
        return 1

    def _kill_worker(self, rng: random.Random) -> int:
        name = rng.choice(list(self._workers))
        process = self._workers.pop(name)
        process.kill()
        process.join()
        self._ready.pop(name).close()
        self._killed[name] = time.time()
        return 1

    # -- phases

    def _disturb(self, app: Thorn) -> None:
        """Let them write and work, and do them harm, until nearly all is written and delivered."""
        between = 2 * self._messages / FAULTS
        next_fault, writing = self._rng.uniform(0, between), True
        while writing or self._left(app) > self._messages // 20:
            self._fill_up(writing=writing)
            time.sleep(0.2)
            written = self._kit.count()
            progress = written + self._delivered(app)
            self._check_moving(app, progress)
            if progress >= next_fault:
                self._harm()
                next_fault = progress + self._rng.uniform(0.5, 1.5) * between
            # A slow machine writes and delivers more between two faults, and so more in all.
            if writing and written >= self._messages and self._harmed_enough():
                writing = False
                while self._kill_writer(self._rng):
                    pass

    def _check_moving(self, app: Thorn, progress: int) -> None:
        if progress != self._progress:
            self._progress, self._moved = progress, time.monotonic()
        assert time.monotonic() - self._moved < PATIENCE, f"nothing goes on: {app.stats()}"

    def _harm(self) -> None:
        """Do some harm: in a round of chance's order each kind once, so that none is missed."""
        number = 0
        while not number:
            if not self._next_harms:
                self._next_harms = self._rng.sample(list(self._harms), len(self._harms))
            fault = self._next_harms.pop()
            number = self._harms[fault](self._rng)
            self._faults[fault] += number

    def _harmed_enough(self) -> bool:
        return min(self._faults.values()) >= self._rounds

    def _left(self, app: Thorn) -> int:
        """How much isn't delivered yet."""
        stats = app.stats()
        delivered = stats.deliveries[DeliveryState.DELIVERED]
        return stats.unrouted + sum(stats.deliveries.values()) - delivered

    def _delivered(self, app: Thorn) -> int:
        return app.stats().deliveries[DeliveryState.DELIVERED]

    def _settle(self, app: Thorn) -> None:
        """Let the workers finish."""
        self._fill_up(writing=False)
        # Twice, for what is counted first may have become what is counted last.
        while self._left(app) or self._left(app):
            self._check_moving(app, self._delivered(app))
            time.sleep(0.2)

    def _stop_workers(self) -> list[int | None]:
        for name, process in self._workers.items():
            with self._ready.pop(name) as ready:
                ready.recv()
            process.terminate()
        for process in self._workers.values():
            process.join(30)
        return [process.exitcode for process in self._workers.values()]

    def _outcome(self, exits: list[int | None]) -> Outcome:
        arrivals = [
            Arrival(**dict(zip(_FIELDS, values, strict=True)))
            for values in json.loads(self._report.read_text("utf-8"))
        ]
        attempts: dict[str, list[Attempt]] = {}
        with self._kit.app(programs.settings(self._kit, "end")) as app:
            deliveries = list(app.deliveries())
            ids = [delivery.id for delivery in deliveries]
            for some in (ids[at : at + PAGE] for at in range(0, len(ids), PAGE)):
                for attempt in app.attempts(some):
                    attempts.setdefault(attempt.delivery_id, []).append(attempt)
            return Outcome(
                truth=self._kit.truth(),
                arrivals=arrivals,
                deliveries=deliveries,
                attempts=attempts,
                unrouted=app.stats().unrouted,
                killed=self._killed,
                faults=self._faults,
                exits=exits,
            )


_FIELDS = [field.name for field in attrs.fields(Arrival)]
