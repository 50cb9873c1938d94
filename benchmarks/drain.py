"""A worker process: `python benchmarks/drain.py STORE TRANSPORT` delivers all messages, then exits.

It prints a line when it is ready, waits for a line of input, and at the end prints its start, its
end and its number of attempts.
"""

from __future__ import annotations

import sys
import time

from common import local_settings

from thorn_core import Thorn
from thorn_core.transports import HttpxTransport
from thorn_core.transports.fast import FastTransport
from thorn_core.worker.collector import relaxed_collector
from thorn_sqlalchemy import SqlStore

TRANSPORTS = {"fast": FastTransport, "httpx": HttpxTransport}


def main(url: str, transport: str) -> None:
    """Deliver all messages."""
    with Thorn(
        store=SqlStore(url),
        dispatcher="outbox",
        settings=local_settings(),
        transport=TRANSPORTS[transport],
    ) as app:
        app.store.check()
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.time()
        with relaxed_collector():  # as `thorn worker` does
            tried = app.worker().drain()
        print(begun, time.time(), tried, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
