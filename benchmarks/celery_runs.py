"""Rate and cost of workers on a filled database and queue."""

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
# Microseconds from the start of the first attempt to the end of the last.
SPAN = text(
    "SELECT max(d.finished_at) - min(a.at) FROM thorn_deliveries d"
    " JOIN thorn_attempts a ON a.delivery_id = d.id"
)


@attrs.frozen(kw_only=True)
class Run:
    """The measurements of a run.

    Attributes:
        rate: Deliveries per second, from the start of the first request to the end of the last.
        worker: Milliseconds of processor time of the worker processes per delivery.
        database: Milliseconds of processor time of the database server per delivery.
        tasks: Number of tasks through the broker, by name.
    """

    rate: float
    worker: float = 0.0
    database: float = 0.0
    tasks: Mapping[str, int] = attrs.field(factory=dict)


@contextlib.contextmanager
def broker(name: str) -> Iterator[Mapping[str, str] | None]:
    """Yield environment variables for a broker and unique names; None if it isn't available.

    Deletes the programs' data in the broker afterwards.
    """
    url, own = BROKERS[name], f"thorn_bench_{uuid.uuid4().hex[:8]}"
    options = {"global_keyprefix": f"{own}:"} if name == "Redis" else {}
    celery = Celery(own, broker=url, set_as_current=False)
    celery.conf.broker_transport_options = options
    with celery.connection_for_write(connect_timeout=5) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except (*connection.connection_errors, ImportError) as error:
            print(f"    {name} is not available, so it is skipped: {error.__class__.__name__}")
            yield None
            return
        try:
            # Celery warns if it runs as root.
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
    """Run workers on messages with one recipient each, and measure them.

    Args:
        number: Number of messages, sent before or during the run.
        *command: Command of `celery_thorn.py`.
        begun: Called after the workers have started.
        **variables: Variables of their environment.
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
    """Wait for all deliveries; return the milliseconds of workers and database per delivery.

    The start of the workers isn't included: measures from the first poll that finds a finished
    delivery to the last poll.
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
    """Stop a program and its children; return the lines of their output."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0].splitlines()


def dispatched(number: int, **variables: str) -> Run:
    """Run a worker process on deliveries in Thorn 1.x's tasks, and measure it."""
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
