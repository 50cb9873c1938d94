"""The effect of hanging recipients on the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from common import PAYLOAD, Figure, alternate, local_settings

from thorn_core import Event, Thorn, signals
from thorn_core.transports.fast import FastTransport
from thorn_core.worker import new_event_loop

RECIPIENTS = 20


async def healthy_rate(port: int, messages: int, *, hanging: int) -> float:
    """Return the deliveries per second to recipients that don't hang."""
    # Each has its own address, because connections are limited by host and port.
    settings = local_settings(
        concurrency=256, recipient_concurrency=16, event_timeout=5, grace_period=0
    )
    app = Thorn(dispatcher="outbox", settings=settings, transport=FastTransport)
    for number in range(hanging):
        app.subscribe("a.*", f"http://127.0.0.{number + 1}:{port}/hang")
    for number in range(hanging, RECIPIENTS):
        app.subscribe("a.*", f"http://127.0.0.{number + 1}:{port}/")
    event = Event("a.b", app=app)
    worker = app.worker()
    running = asyncio.create_task(worker.arun())
    done = 0
    finished = asyncio.Event()
    expected = messages * (RECIPIENTS - hanging)

    def count(sender: Thorn, **_: object) -> None:
        nonlocal done
        done += 1
        if done == expected:
            finished.set()

    with signals.delivery_delivered.connected_to(count, sender=app):
        begun = time.perf_counter()
        for number in range(messages):
            event.send(PAYLOAD)
            # Limits the backlog to that of a busy program.
            while (number + 1) * (RECIPIENTS - hanging) - done > 4000:
                await asyncio.sleep(0.001)
        await finished.wait()
        took = time.perf_counter() - begun
    worker.stop()
    running.cancel()
    await asyncio.wait([running])
    app.close()
    return expected / took


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield the figure."""
    messages, rounds = (200, 1) if quick else (3000, 3)

    def rate(hanging: int) -> float:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(healthy_rate(port, messages, hanging=hanging))

    peer, subject, ratio = alternate(lambda: rate(0), lambda: rate(RECIPIENTS // 10), rounds)
    yield Figure(
        name="throughput of the others, 10 % of recipients hanging",
        subject=subject,
        peer=peer,
        against="none hanging",
        unit="/s",
        ratio=ratio,
        target=">=0.9",
    )
