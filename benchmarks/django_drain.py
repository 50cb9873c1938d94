"""A worker process with Django's store: `python benchmarks/django_drain.py`; see `drain.py`."""

from __future__ import annotations

import sys
import time

import django
from common import local_settings

from thorn_core import Thorn
from thorn_core.transports.fast import FastTransport


def main() -> None:
    """Deliver all messages."""
    django.setup()
    from thorn_django.store import DjangoStore

    with Thorn(
        store=DjangoStore(),
        dispatcher="outbox",
        settings=local_settings(),
        transport=FastTransport,
    ) as app:
        app.store.check()
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.time()
        tried = app.worker().drain()
        print(begun, time.time(), tried, flush=True)


if __name__ == "__main__":
    main()
