"""Thorn 1.x on Celery: `python benchmarks/celery_peer.py fill URL NUMBER`, then `worker`.

A task contains ten deliveries (THORN_CHUNKSIZE) with their payloads. It makes their requests one
after the other in its own `requests.Session`, each signed by an HMAC in a header. It doesn't
validate recipients, and records nothing.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import requests
from celery_common import make_celery, work
from common import PAYLOAD

CHUNK = 10
SECRET = "x" * 44

celery = make_celery()


@celery.task(name="dispatch_requests", ignore_result=True)
def dispatch_requests(deliveries: Sequence[dict[str, Any]]) -> None:
    """Make requests; print the start, the end and the number of requests."""
    begun = time.time()
    session = requests.Session()
    for delivery in deliveries:
        dispatch(session, **delivery)
    os.write(1, f"{begun} {time.time()} {len(deliveries)}\n".encode())


def dispatch(
    session: requests.Session, *, event: str, data: Any, url: str, secret: str, timeout: float
) -> None:
    """Make a request."""
    envelope = {"event": event, "ref": None, "sender": None, "data": data}
    body = json.dumps(envelope).encode()
    digest = hmac.digest(secret.encode(), body, "sha256")
    response = session.post(
        url,
        data=body,
        headers={
            "Hook-HMAC": base64.b64encode(digest).decode(),
            "Hook-Event": event,
            "Content-Type": "application/json",
        },
        timeout=timeout,
        allow_redirects=False,
    )
    response.raise_for_status()


def fill(url: str, number: int) -> None:
    """Send tasks for a number of payloads to a URL."""
    delivery = {"event": "a.b", "data": PAYLOAD, "url": url, "secret": SECRET, "timeout": 3.0}
    for start in range(0, number, CHUNK):
        dispatch_requests.delay([delivery] * min(CHUNK, number - start))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], int(sys.argv[3]))
    else:
        work(celery, "prefork", "1")
