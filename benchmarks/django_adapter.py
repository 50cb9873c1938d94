"""Django's adapter: the cost of saves, and the speed of a worker process with Django's store.

A process can set up Django only once, so each part runs in its own process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from common import Figure, alternate
from databases import NAMES, database
from durable import clear, fill
from programs import DEADLINE, output, program
from sqlalchemy import create_engine, text

BROKER = os.environ.get("THORN_TEST_REDIS", "redis://127.0.0.1:6379/0")
PROJECT = {"DJANGO_SETTINGS_MODULE": "django_settings"}
DELIVERED = text(
    "SELECT count(*), min(created) FROM django_webhook_webhookevent WHERE status = 'SUCCESS'"
)


# -- saves


def saves(url: str, name: str, number: int, rounds: int) -> Iterator[Figure]:
    """Compare saves of a model with three events with saves without events, plus a row."""
    variables = {**PROJECT, "BENCH_DATABASE": url, "BENCH_APPS": "thorn_django"}
    found = json.loads(output("django_saves.py", str(number), str(rounds), **variables))
    for kind, (peer, subject, ratio) in found.items():
        yield Figure(
            name=f"Django's save of a {kind} instance with three events, {name}",
            subject=subject,
            peer=peer,
            against="the same without events, plus create() of a like-sized row",
            unit="µs",
            ratio=ratio,
            target="<=1.25",
        )


# -- workers


def drained(number: int, name: str, *arguments: str, **variables: str) -> float:
    """Return the deliveries per second of a worker process that delivers all messages."""
    with program(name, *arguments, **variables) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} isn't ready")
        said, _ = process.communicate("go\n")
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    begun, ended, tried = said.split()
    assert int(tried) == number, f"{tried} of {number} delivered"
    return number / (float(ended) - float(begun))


def over_django(store: str, url: str, number: int) -> float:
    """Return the deliveries per second of a worker process with Django's store."""
    refill(store, url, number)
    variables = {**PROJECT, "BENCH_DATABASE": store, "BENCH_APPS": "thorn_django"}
    return drained(number, "django_drain.py", **variables)


def over_sqlalchemy(store: str, url: str, number: int) -> float:
    """Return the deliveries per second of a worker process with thorn-sqlalchemy's store."""
    refill(store, url, number)
    return drained(number, "drain.py", store, "fast")


def refill(store: str, url: str, number: int) -> None:
    """Publish messages for one subscription."""
    fill(store, url, number)
    clear(store)


def worker(store: str, name: str, url: str, number: int, rounds: int) -> Figure:
    """Compare worker processes with Django's store and with thorn-sqlalchemy's."""
    peer, subject, ratio = alternate(
        lambda: over_sqlalchemy(store, url, number),
        lambda: over_django(store, url, number),
        rounds,
    )
    return Figure(
        name=f"a worker process over Django's store on {name}, fast transport",
        subject=subject,
        peer=peer,
        against="thorn-sqlalchemy's store on the same tables",
        unit="/s",
        ratio=ratio,
        target=">=0.8",
    )


# -- django-webhook


def django_webhook(store: str, url: str, number: int, rounds: int) -> Figure | None:
    """Compare a worker process with Django's store with django-webhook in a Celery worker."""
    with broker() as variables:
        if variables is None:
            return None
        told = {
            **PROJECT,
            **variables,
            "BENCH_DATABASE": store,
            "BENCH_APPS": "django_webhook",
            # It queries the database while Django loads its apps.
            "PYTHONWARNINGS": "ignore",
        }
        peer, subject, ratio = alternate(
            lambda: fired(told, url, number // 5),
            lambda: over_django(store, url, number),
            rounds,
        )
    return Figure(
        name="a worker process over Django's store on PostgreSQL, against another package",
        subject=subject,
        peer=peer,
        against="django-webhook in a Celery worker of two processes, on Redis",
        unit="/s",
        ratio=ratio,
        target=">=10",
        note="with persistent database connections (CONN_MAX_AGE)",
    )


@contextlib.contextmanager
def broker() -> Iterator[Mapping[str, str] | None]:
    """Yield Redis variables for the peer, and clean up; None if either isn't available."""
    if None in map(importlib.util.find_spec, ("django_webhook", "redis")):
        print("    django-webhook with Celery for Redis is not installed, so it is skipped")
        yield None
        return
    import redis

    prefix = f"thorn_bench_{uuid.uuid4().hex[:8]}:"
    with redis.Redis.from_url(BROKER, socket_connect_timeout=5, socket_timeout=5) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            print(f"    no Redis, so django-webhook is skipped: {error.__class__.__name__}")
            yield None
            return
        try:
            yield {"BENCH_BROKER": BROKER, "BENCH_PREFIX": prefix}
        finally:
            for key in client.scan_iter(f"{prefix}*"):
                client.delete(key)


def fired(variables: Mapping[str, str], url: str, number: int) -> float:
    """Return the deliveries per second of django-webhook, between its first and last record."""
    output("django_peer.py", "fill", url, str(number), **variables)
    engine = create_engine(variables["BENCH_DATABASE"], isolation_level="AUTOCOMMIT")
    until = time.monotonic() + DEADLINE
    done: Any = 0
    try:
        with program("django_peer.py", "worker", **variables) as process, engine.connect() as asked:
            while process.poll() is None and time.monotonic() < until:
                done, begun = asked.execute(DELIVERED).one()
                if done == number:
                    return float(number / (time.time() - begun.timestamp()))
                time.sleep(0.05)
    finally:
        engine.dispose()
    raise SystemExit(f"django-webhook delivered {done} of {number}")


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    url = f"http://127.0.0.1:{port}/"
    saved, number, rounds = (200, 1_000, 1) if quick else (1_500, 5_000, 3)
    for name in NAMES:
        with database(name) as store:
            if store is not None:
                yield from saves(store, name, saved, 2 * rounds - 1)
    for name in NAMES:
        with database(name) as store:
            if store is not None:
                yield worker(store, name, url, number, rounds)
    with database("PostgreSQL") as store:
        figure = None if store is None else django_webhook(store, url, number, rounds)
        if figure is not None:
            yield figure
