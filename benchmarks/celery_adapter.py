"""Celery's workers, against `thorn worker` on the same store, and against Thorn 1.x's tasks.

What is delivered was sent before the workers begin, unless said otherwise; beat runs, as it must.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping

from celery_runs import Run, broker, delivered, dispatched
from common import Figure
from databases import database
from programs import output

ONE = ("celery", "prefork", "1")


def send(way: str, url: str, number: int, variables: Mapping[str, str]) -> None:
    """Subscribe the URL, and send messages: `fill` in large transactions, `send` in small ones."""
    output("celery_thorn.py", way, url, str(number), **variables)


def of(url: str, number: int, *command: str, on: str, store: str = "PostgreSQL") -> Run:
    """A run of workers over what was sent before, in a database and a queue of its own."""
    with database(store) as own, broker(on) as told:
        # Whoever asks has looked that they are there.
        assert own is not None
        assert told is not None
        variables = {**told, "BENCH_DATABASE": own}
        send("fill", url, number, variables)
        return delivered(number, *command, **variables)


def of_peer(url: str, number: int, *, on: str, session: str = "") -> Run:
    """A run of Thorn 1.x's tasks, which were sent before."""
    with broker(on) as told:
        assert told is not None
        variables = {**told, "BENCH_SESSION": session}
        output("celery_peer.py", "fill", url, str(number), **variables)
        return dispatched(number, **variables)


def compared(
    name: str,
    against: str,
    target: str,
    peer: Callable[[], Run],
    subject: Callable[[], Run],
    rounds: int,
    note: str = "",
) -> Figure:
    """A figure of runs in turn, with the processor time of each."""
    runs = [(peer(), subject()) for _ in range(rounds)]

    def median(of: Callable[[Run, Run], float]) -> float:
        return statistics.median(of(p, s) for p, s in runs)

    cost = (
        "processor time of a delivery, worker + database:"
        f" {median(lambda _, s: s.worker):.2f} + {median(lambda _, s: s.database):.2f} ms"
        f" against {median(lambda p, _: p.worker):.2f} + {median(lambda p, _: p.database):.2f} ms"
    )
    return Figure(
        name=name,
        subject=median(lambda _, s: s.rate),
        peer=median(lambda p, _: p.rate),
        against=against,
        unit="/s",
        ratio=median(lambda p, s: s.rate / p.rate),
        target=target,
        note=f"{note}; {cost}" if note else cost,
    )


def one_worker(
    url: str, number: int, rounds: int, *, on: str, pool: str = "prefork", store: str = "PostgreSQL"
) -> Figure:
    """A Celery worker against `thorn worker`."""
    tasks = "4" if pool == "threads" else "1"
    return compared(
        f"a Celery worker process ({pool}, concurrency {tasks}) on {on}, {store}",
        "`thorn worker` on the same store",
        ">=0.7",
        lambda: of(url, number, "outbox", on=on, store=store),
        lambda: of(url, number, "celery", pool, tasks, on=on, store=store),
        rounds,
    )


def against_1(url: str, number: int, rounds: int, *, on: str) -> Figure:
    """A Celery worker against one with Thorn 1.x's tasks."""
    kept = of_peer(url, number, on=on, session="kept")
    return compared(
        f"a Celery worker process (prefork) on {on}, PostgreSQL, against Thorn 1.x's way",
        "a task for ten deliveries, which a requests.Session makes one by one and nothing keeps",
        ">=4",
        lambda: of_peer(url, number, on=on),
        lambda: of(url, number, *ONE, on=on),
        rounds,
        note=f"with one session for all of its tasks that does {kept.rate:,.0f}/s",
    )


def second_worker(url: str, number: int, rounds: int, *, on: str) -> Figure:
    """Two Celery worker processes against one."""
    return compared(
        f"two Celery worker processes (prefork) on {on}, PostgreSQL",
        "one",
        ">=1.6",
        lambda: of(url, number, *ONE, on=on),
        lambda: of(url, number, "celery", "prefork", "2", on=on),
        rounds,
        note="database, broker and recipient share the processors with them",
    )


def messages(url: str, number: int, *, on: str) -> Figure:
    """Tasks through the broker, while a process sends as fast as it can and a worker delivers."""
    with database("PostgreSQL") as own, broker(on) as told:
        assert own is not None
        assert told is not None
        variables = {**told, "BENCH_DATABASE": own}
        send("fill", url, 0, variables)
        run = delivered(
            number, *ONE, begun=lambda: send("send", url, number, variables), **variables
        )
    tasks = sum(run.tasks.values())
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(run.tasks.items()))
    return Figure(
        name=f"tasks through {on} for a delivery, each message sent by itself meanwhile",
        subject=tasks,
        peer=number,
        against="one for each delivery",
        unit="",
        ratio=tasks / number,
        target="<=0.1",
        note=f"{kinds}; {run.rate:,.0f} deliveries/s",
    )


def has_database(name: str) -> bool:
    """Whether there is such a database."""
    with database(name) as own:
        return own is not None


def has_broker(name: str) -> bool:
    """Whether there is such a broker."""
    with broker(name) as told:
        return told is not None


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Every figure."""
    url = f"http://127.0.0.1:{port}/"
    number, rounds = (1_000, 1) if quick else (5_000, 3)
    if not has_database("PostgreSQL"):
        return
    for on in filter(has_broker, ("RabbitMQ", "Redis")):
        yield one_worker(url, number, rounds, on=on)
        yield against_1(url, number, rounds, on=on)
        yield messages(url, number, on=on)
    if not has_broker("RabbitMQ"):
        return
    for pool in ("solo", "threads"):
        yield one_worker(url, number, 1, on="RabbitMQ", pool=pool)
    yield second_worker(url, number, rounds, on="RabbitMQ")
    if has_database("MariaDB"):
        yield one_worker(url, number, rounds, on="RabbitMQ", store="MariaDB")
