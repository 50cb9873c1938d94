"""The whole path, from send to delivery, compared with the bare requests."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from common import CONCURRENCY, PAYLOAD, Figure, alternate, local_settings

from thorn_core import Event, Thorn
from thorn_core.codecs import dump_json
from thorn_core.transports import HttpxTransport, Transport
from thorn_core.transports.fast import FastTransport
from thorn_core.worker import new_event_loop

BODY = b'{"event":"a.b","ref":null,"sender":null,"data":' + dump_json(PAYLOAD) + b"}"
HEADERS = {"content-type": "application/json"}
# Maximum backlog: backlog.py measures programs that send faster than their recipients respond.
WINDOW = 2000


async def whole_path(
    url: str, number: int, transport: Callable[[], Transport], *, warm: bool = True
) -> float:
    """Return the deliveries per second, including the sends."""
    app = Thorn(dispatcher="outbox", settings=local_settings(), transport=transport)
    app.subscribe("a.*", url)
    event = Event("a.b", app=app)
    begun = time.perf_counter()
    left = number
    delivered = 0
    async with app.worker() as worker:
        while left:
            for _ in range(min(left, WINDOW)):
                event.send(PAYLOAD)
            left -= min(left, WINDOW)
            delivered += await worker.adrain()
    took = time.perf_counter() - begun
    assert delivered == number, f"{delivered} of {number} delivered"
    app.close()
    return number / took


async def bare_aiohttp(url: str, number: int) -> float:
    """Return the requests per second of a bare session."""
    left = iter(range(number))

    async def post(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(url, data=BODY, headers=HEADERS) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(post(session) for _ in range(CONCURRENCY)))
        return number / (time.perf_counter() - begun)


def bare_httpx(url: str, number: int) -> float:
    """Return the requests per second of a loop with one client."""
    with httpx.Client(trust_env=False) as client:
        begun = time.perf_counter()
        for _ in range(number):
            client.post(url, content=BODY, headers=HEADERS)
        return number / (time.perf_counter() - begun)


async def shared_async_httpx(url: str, number: int) -> float:
    """Return the requests per second of one AsyncClient, with the engine's concurrency."""
    left = iter(range(number))

    async def post(client: httpx.AsyncClient) -> None:
        for _ in left:
            await client.post(url, content=BODY, headers=HEADERS)

    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(post(client) for _ in range(CONCURRENCY)))
        return number / (time.perf_counter() - begun)


def on(loop: Callable[[], asyncio.AbstractEventLoop], coroutine: Any) -> float:
    """Run a coroutine on an event loop of this kind."""
    with asyncio.Runner(loop_factory=loop) as runner:
        return float(runner.run(coroutine))


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    url = f"http://127.0.0.1:{port}/"
    number, rounds = (2_000, 1) if quick else (20_000, 5)
    for name, loop in (("uvloop", new_event_loop), ("asyncio", asyncio.new_event_loop)):
        peer, subject, ratio = alternate(
            lambda loop=loop: on(loop, bare_aiohttp(url, number)),
            lambda loop=loop: on(loop, whole_path(url, number, FastTransport)),
            rounds,
        )
        yield Figure(
            name=f"whole path, fast transport, {name}",
            subject=subject,
            peer=peer,
            against="bare aiohttp session",
            unit="/s",
            ratio=ratio,
            target=">=0.6",
        )
    number = number // 5
    shared = on(asyncio.new_event_loop, shared_async_httpx(url, number // 4))
    peer, subject, ratio = alternate(
        lambda: bare_httpx(url, number),
        lambda: on(asyncio.new_event_loop, whole_path(url, number, HttpxTransport)),
        rounds,
    )
    yield Figure(
        name="whole path, httpx transport",
        subject=subject,
        peer=peer,
        against="sequential httpx.Client",
        unit="/s",
        ratio=ratio,
        target=">=0.45",
        note=f"one shared AsyncClient: {shared:,.0f}/s",
    )
    yield memory(url, quick=quick)


def resident() -> float:
    """Return the mebibytes of memory in use; without /proc, the maximum so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def memory(url: str, *, quick: bool) -> Figure:
    """Compare memory after a number of deliveries and after four times as many."""
    few = 5_000 if quick else 50_000
    settings = local_settings()
    app = Thorn(dispatcher="outbox", settings=settings, transport=FastTransport)
    app.subscribe("a.*", url)
    event = Event("a.b", app=app)

    async def main() -> tuple[float, float]:
        after: list[float] = []
        async with app.worker() as worker:
            for goal in (few, 3 * few):
                for _ in range(goal // 1000):
                    for _ in range(1000):
                        event.send(PAYLOAD)
                    await worker.adrain()
                gc.collect()
                after.append(resident())
        return after[0], after[1]

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        first, last = runner.run(main())
    app.close()
    return Figure(
        name=f"memory after {4 * few:,} deliveries",
        subject=last,
        peer=first,
        against=f"after {few:,}",
        unit="MiB",
        ratio=last / first,
        target="<1.1",
    )
