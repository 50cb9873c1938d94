"""The programs: a writer, a worker and the recipients, each the main function of a process."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kills.kit import Abandoned, Kit
from thorn_core import Event, RetryPolicy, Settings, Thorn

# Events to how often they are sent; by `fault.all` every recipient is reached, by the last none.
EVENTS = {"fault.a": 40, "fault.b": 30, "fault.c": 20, "fault.all": 5, "silence.d": 5}
CONCURRENCY = 64
CHUNK = 100


def settings(kit: Kit, name: str) -> Settings:
    """Settings of short leases; recipients see by the user agent who a request is of.

    Args:
        kit: The store's.
        name: Of the program.
    """
    return Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        concurrency=CONCURRENCY,
        recipient_concurrency=CONCURRENCY // 2,
        chunksize=CHUNK,
        event_timeout=2,
        lease=kit.lease,
        poll_interval=0.1,
        retry_policy=RetryPolicy((0.2,) * 50, jitter=0),
        user_agent=name,
    )


# -- writer


def write(kit: Kit, name: str, number: int, seed: int) -> None:
    """Send in transactions, some of which are rolled back whole or in part, until killed."""
    rng = random.Random(seed)
    app = kit.app(settings(kit, name), number=number)
    writer = _Writer(kit, app, name, rng)
    while True:
        try:
            writer.transact()
        except kit.errors as error:
            logging.getLogger(__name__).warning("%s: %s", name, error)


class _Writer:
    def __init__(self, kit: Kit, app: Thorn, name: str, rng: random.Random) -> None:
        self._kit, self._name, self._rng = kit, name, rng
        self._events = [Event(event, app=app) for event in EVENTS]
        self._weights = list(EVENTS.values())
        self._sent = 0

    def transact(self) -> None:
        rng, before, begun = self._rng, self._sent, time.monotonic()
        with suppress(Abandoned), self._kit.transaction() as handle:
            for _ in range(rng.randint(1, self._kit.most)):
                if rng.random() < 0.1:
                    self._nest(handle, depth=1)
                else:
                    self._send(handle)
            self._maybe_abandon(0.1)
        # At least as long as it took: others want to write as well.
        time.sleep(max((self._sent - before) / self._kit.rate, time.monotonic() - begun))

    def _nest(self, handle: Any, depth: int) -> None:
        with suppress(Abandoned), self._kit.savepoint(handle):
            for _ in range(self._rng.randint(1, 3)):
                self._send(handle)
            if depth < 3 and self._rng.random() < 0.3:
                self._nest(handle, depth + 1)
            self._maybe_abandon(0.4)

    def _maybe_abandon(self, chance: float) -> None:
        if self._rng.random() < chance:
            raise Abandoned

    def _send(self, handle: Any) -> None:
        (event,) = self._rng.choices(self._events, self._weights)
        key = f"{self._name}-{self._sent}"
        self._sent += 1
        receipt = event.send({"key": key}, within=handle)
        self._kit.note(handle, key, receipt.message.id, event.name)


# -- worker


def work(kit: Kit, name: str, number: int, ready: Connection) -> None:
    """Work until killed, or told to stop.

    Args:
        kit: The store's.
        name: Of the program.
        number: Of the program.
        ready: Gets a word as soon as it can be told to stop.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready.send("ready")
    with kit.app(settings(kit, name), number=number) as app:
        kit.work(app)


# -- recipients


def receive(ports: list[socket.socket], report: Path, seed: int) -> None:
    """Answer requests, one in a hundred by an error, until told to stop; then write a report.

    Args:
        ports: Listening sockets.
        report: File of a list of `[time, port, delivery, message, key, program, accepted]`.
        seed: Of the errors.
    """
    seen: list[list[Any]] = []
    rng = random.Random(seed)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        for number, listening in enumerate(ports):
            record = _recorder(number, seen, rng)
            await loop.create_server(lambda record=record: _Recipient(record), sock=listening)
        await stopped.wait()

    asyncio.run(serve())
    report.write_text(json.dumps(seen), "utf-8")


Record = Callable[[dict[str, str], bytes], bool]


def _recorder(number: int, seen: list[list[Any]], rng: random.Random) -> Record:
    def record(headers: dict[str, str], body: bytes) -> bool:
        accepted = rng.random() >= 0.01
        seen.append(
            [
                time.time(),
                number,
                headers["hook-delivery"],
                headers["webhook-id"],
                json.loads(body)["data"]["key"],
                headers["user-agent"],
                accepted,
            ]
        )
        return accepted

    return record


class _Recipient(asyncio.Protocol):
    """One connection: as little of HTTP as the requests need, but quickly."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            lines = self._received[:end].decode("latin-1").split("\r\n")[1:]
            pairs = (line.partition(": ") for line in lines)
            headers = {name.lower(): value for name, _, value in pairs}
            begin, size = end + 4, int(headers["content-length"])
            if len(self._received) < begin + size:
                return
            body = self._received[begin : begin + size]
            self._received = self._received[begin + size :]
            status = b"200 OK" if self._record(headers, body) else b"500 Internal Server Error"
            self._transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
