"""Thorn with a Celery app: `python benchmarks/celery_thorn.py COMMAND`.

`fill URL NUMBER` subscribes the URL and sends this number of messages, a thousand per transaction;
`send URL NUMBER` sends each in its own transaction. Then `celery POOL PROCESSES` delivers with
beat, or `outbox` delivers as `thorn worker` does. BENCH_DATABASE and BENCH_BROKER contain URLs,
BENCH_NAME the prefix of names in the broker.
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
    """Print each task that comes through the broker."""
    os.write(1, f"{task.name}\n".encode())


def subscribe(url: str) -> Event:
    """Subscribe a URL to the event, unless it is subscribed."""
    webhooks.store.create()
    if not list(webhooks.subscriptions()):
        webhooks.subscribe("a.*", url)
    return Event("a.b", app=webhooks)


def fill(url: str, number: int) -> None:
    """Send messages in transactions of a thousand."""
    event = subscribe(url)
    for start in range(0, number, 1000):
        with buffer_events():
            for _ in range(start, min(start + 1000, number)):
                event.send(PAYLOAD)


def send(url: str, number: int) -> None:
    """Send each message in its own transaction."""
    event = subscribe(url)
    for _ in range(number):
        event.send(PAYLOAD)


def main(command: str, *arguments: str) -> None:
    """Run the command."""
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
