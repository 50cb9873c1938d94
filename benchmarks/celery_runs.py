"""Runs of workers over a filled database and queue: how fast, at what cost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import attrs
import cpu
from celery import Celery
from programs import DEADLINE, program
from sqlalchemy import Engine, create_engine, text

from thorn_core.stores.sql.rows import DELIVERED as DELIVERED_STATE

BROKERS = {
    "RabbitMQ": os.environ.get("THORN_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
    "Redis": os.environ.get("THORN_TEST_REDIS", "redis://127.0.0.1:6379/0"),
}
SERVER_PROCESSES = {"postgresql": "postgres", "mysql": "mariadbd", "mariadb": "mariadbd"}
DELIVERED = text(f"SELECT count(*) FROM thorn_deliveries WHERE state = {DELIVERED_STATE}")
# Microseconds: from the first attempt's beginning to the last one's end.
SPAN = text(
    "SELECT max(d.finished_at) - min(a.at) FROM thorn_deliveries d"
    " JOIN thorn_attempts a ON a.delivery_id = d.id"
)


@attrs.frozen(kw_only=True)
class Run:
    """What was seen of a run.

    Attributes:
        rate: Deliveries a second, from the first request's beginning to the last one's end.
        worker: Milliseconds of processor time of the workers' processes for each delivery.
        database: The same of the database server.
        tasks: Tasks that came through the broker, by name.
    """

    rate: float
    worker: float = 0.0
    database: float = 0.0
    tasks: Mapping[str, int] = attrs.field(factory=dict)


@contextlib.contextmanager
def broker(name: str) -> Iterator[Mapping[str, str] | None]:
    """What tells programs of a broker, and what to call things there; None if it isn't there.

    What they leave in it is gone afterwards.
    """
    url, own = BROKERS[name], f"thorn_bench_{uuid.uuid4().hex[:8]}"
    options = {"global_keyprefix": f"{own}:"} if name == "Redis" else {}
    celery = Celery(own, broker=url, set_as_current=False)
    celery.conf.broker_transport_options = options
    with celery.connection_for_write(connect_timeout=5) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except (*connection.connection_errors, ImportError) as error:
            print(f"    {name} isn't there, and isn't measured: {error.__class__.__name__}")
            yield None
            return
        try:
            # Celery warns those who run it as root.
            yield {"BENCH_BROKER": url, "BENCH_NAME": own, "PYTHONWARNINGS": "ignore"}
        finally:
            if name == "RabbitMQ":
                connection.default_channel.queue_delete(own)
                connection.default_channel.exchange_delete(own)
            else:
                client = connection.default_channel.client
                for key in client.scan_iter(f"{own}:*"):
                    client.execute_command("DEL", key)


def delivered(
    number: int, *command: str, begun: Callable[[], object] = lambda: None, **variables: str
) -> Run:
    """What workers make of so many messages, each for one recipient.

    Args:
        number: How many there are, or will be.
        *command: Of `celery_thorn.py`.
        begun: Called once the workers are started.
        **variables: Of their environment.
    """
    engine = create_engine(variables["BENCH_DATABASE"], isolation_level="AUTOCOMMIT")
    try:
        with program("celery_thorn.py", *command, **variables) as process:
            begun()
            worker, database = followed(engine, process, number)
            tasks = Counter(ended(process))
        with engine.connect() as connection:
            span = float(connection.execute(SPAN).scalar_one()) / 1e6
    finally:
        engine.dispose()
    return Run(rate=number / span, worker=worker, database=database, tasks=tasks)


def followed(engine: Engine, process: subprocess.Popen[str], number: int) -> tuple[float, float]:
    """Wait until all is delivered; milliseconds of the workers and of the database for each.

    What it takes a worker to start isn't counted: what was used between the first look that finds
    something delivered and the last.
    """
    server = SERVER_PROCESSES[engine.dialect.name]
    until = time.monotonic() + DEADLINE
    first: tuple[int, float, float] | None = None
    done = 0
    with engine.connect() as connection:
        while process.poll() is None and time.monotonic() < until:
            done = connection.execute(DELIVERED).scalar_one()
            seen = (done, cpu.used_by_group(process.pid), cpu.used_by_name(server))
            if first is None and done:
                first = seen
            if first is not None and done == number:
                more = max(done - first[0], 1)
                return 1000 * (seen[1] - first[1]) / more, 1000 * (seen[2] - first[2]) / more
            time.sleep(0.1)
    raise SystemExit(f"delivered {done} of {number}")


def ended(process: subprocess.Popen[str]) -> list[str]:
    """End a program and its children; the lines that they have said."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0].splitlines()


def dispatched(number: int, **variables: str) -> Run:
    """What a worker's process makes of so many deliveries in Thorn 1.x's tasks."""
    told: list[tuple[float, float, int]] = []
    with program("celery_peer.py", "worker", **variables) as process:
        assert process.stdout is not None
        before = 0.0
        while sum(count for _, _, count in told) < number:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the peer ended after {len(told)} tasks")
            begun, end, count = line.split()
            before = before if told else cpu.used_by_group(process.pid)
            told.append((float(begun), float(end), int(count)))
        used = cpu.used_by_group(process.pid) - before
        ended(process)
    span = max(end for _, end, _ in told) - min(begun for begun, _, _ in told)
    return Run(rate=number / span, worker=1000 * used / number, tasks=Counter(sent=len(told)))
