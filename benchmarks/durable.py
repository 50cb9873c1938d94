"""Worker processes on a database, compared with their transport alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import CONCURRENCY, PAYLOAD, Figure, alternate, local_settings
from databases import NAMES, database
from drain import TRANSPORTS
from throughput import BODY, HEADERS, bare_aiohttp, on

from thorn_core import Event, Request, Thorn, Transport, buffer_events
from thorn_core.worker import new_event_loop
from thorn_sqlalchemy import SqlStore

DRAIN = str(Path(__file__).with_name("drain.py"))


async def bare(make: Callable[[], Transport], url: str, number: int) -> float:
    """Return the requests per second of a transport alone."""
    transport = make()
    left = iter(range(number))
    request = Request(url=url, headers=HEADERS, body=BODY)

    async def post() -> None:
        for _ in left:
            await transport.send(request)

    begun = time.perf_counter()
    await asyncio.gather(*(post() for _ in range(CONCURRENCY)))
    took = time.perf_counter() - begun
    await transport.close()
    return number / took


def fill(store: str, url: str, number: int) -> None:
    """Subscribe to messages, and publish them."""
    with Thorn(store=SqlStore(store), dispatcher="outbox", settings=local_settings()) as app:
        app.store.create()
        event = Event("a.b", app=app)
        app.subscribe("a.*", url)
        for _ in range(number // 1000):
            with buffer_events():
                for _ in range(1000):
                    event.send(PAYLOAD)


def drained(store: str, transport: str, number: int, workers: int) -> float:
    """Return the total deliveries per second of worker processes."""
    command = [sys.executable, DRAIN, store, transport]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    told = [process.communicate("go\n")[0].split() for process in started]
    assert sum(int(tried) for _, _, tried in told) >= number, told
    begun = min(float(begin) for begin, _, _ in told)
    return number / (max(float(end) for _, end, _ in told) - begun)


def one_worker(name: str, transport: str, url: str, number: int, rounds: int) -> Figure | None:
    """Compare a worker process with its transport alone."""
    with database(name) as store:
        if store is None:
            return None

        def subject() -> float:
            fill(store, url, number)
            clear(store)
            return drained(store, transport, number, 1)

        peer, rate, ratio = alternate(
            lambda: on(new_event_loop, bare(TRANSPORTS[transport], url, number)), subject, rounds
        )
    session = on(new_event_loop, bare_aiohttp(url, number))
    return Figure(
        name=f"a worker process on {name}, {transport} transport",
        subject=rate,
        peer=peer,
        against="the same transport alone",
        unit="/s",
        ratio=ratio,
        target=">=0.6",
        note=f"{rate / session:.2f} of a bare aiohttp session on uvloop ({session:,.0f}/s)",
    )


def clear(store: str) -> None:
    """Delete all subscriptions but one, because each round creates one."""
    with Thorn(store=SqlStore(store), dispatcher="outbox", settings=local_settings()) as app:
        for subscription in list(app.subscriptions())[1:]:
            app.unsubscribe(subscription.id)


def second_worker(url: str, number: int, rounds: int) -> Figure | None:
    """Compare two worker processes with one, on PostgreSQL."""
    with database("PostgreSQL") as store:
        if store is None:
            return None

        def of(workers: int) -> float:
            fill(store, url, number)
            clear(store)
            return drained(store, "fast", number, workers)

        peer, rate, ratio = alternate(lambda: of(1), lambda: of(2), rounds)
    return Figure(
        name="two worker processes on PostgreSQL",
        subject=rate,
        peer=peer,
        against="one",
        unit="/s",
        ratio=ratio,
        target=">=1.6",
        note="the database and the recipient's server run on the same processors",
    )


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    url = f"http://127.0.0.1:{port}/"
    number, rounds = (1_000, 1) if quick else (10_000, 3)
    for name in NAMES:
        for transport, share in (("fast", 1), ("httpx", 5)):
            few = max(number // share // 1000, 1) * 1000
            figure = one_worker(name, transport, url, few, rounds)
            if figure is not None:
                yield figure
    figure = second_worker(url, number, rounds)
    if figure is not None:
        yield figure
