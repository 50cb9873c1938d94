"""Thorn and a Celery app, at work: `python benchmarks/celery_thorn.py COMMAND`.

`fill URL NUMBER` subscribes the URL and sends so many messages, a thousand in a transaction;
`send URL NUMBER` sends each in its own. Then `celery POOL PROCESSES` delivers, with beat, or
`outbox`, which is what `thorn worker` does. BENCH_DATABASE, BENCH_BROKER and BENCH_NAME say where,
and how what is in the broker is named.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from celery.signals import task_prerun
from celery_common import make_celery, work
from common import PAYLOAD, local_settings

from thorn_celery import install
from thorn_core import Event, Thorn, buffer_events
from thorn_core.transports.fast import FastTransport
from thorn_sqlalchemy import SqlStore

webhooks = Thorn(
    store=SqlStore(os.environ["BENCH_DATABASE"]),
    dispatcher="celery",
    settings=local_settings(),
    transport=FastTransport,
)
celery = make_celery()
install(celery, webhooks)


@task_prerun.connect
def count(task: Any, **_: Any) -> None:
    """Tell whoever started this of each task that came through the broker."""
    os.write(1, f"{task.name}\n".encode())


def subscribe(url: str) -> Event:
    """Subscribe a URL to the event, unless it is."""
    webhooks.store.create()
    if not list(webhooks.subscriptions()):
        webhooks.subscribe("a.*", url)
    return Event("a.b", app=webhooks)


def fill(url: str, number: int) -> None:
    """Send in transactions of a thousand."""
    event = subscribe(url)
    for start in range(0, number, 1000):
        with buffer_events():
            for _ in range(start, min(start + 1000, number)):
                event.send(PAYLOAD)


def send(url: str, number: int) -> None:
    """Send each in a transaction of its own."""
    event = subscribe(url)
    for _ in range(number):
        event.send(PAYLOAD)


def main(command: str, *arguments: str) -> None:
    """Do what is asked."""
    with webhooks:
        if command == "outbox":
            webhooks.worker().run()
        elif command == "celery":
            with tempfile.TemporaryDirectory() as directory:
                work(celery, *arguments, "--beat", f"--schedule={directory}/beat")
        else:
            {"fill": fill, "send": send}[command](arguments[0], int(arguments[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
