"""Celery workers, compared with `thorn worker` on the same store, and with Thorn 1.x's tasks.

Unless stated otherwise, all messages are sent before the workers start. Beat runs, as required.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from celery_runs import Run, broker, delivered, dispatched
from common import Figure
from databases import database
from programs import output

WORKER = ("outbox",)
ONE = ("celery", "prefork", "1")
TWO = ("celery", "prefork", "2")
THREADS = ("celery", "threads", "4")
# Milliseconds, as in server.c.
SLOW = 20


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    url = f"http://127.0.0.1:{port}/"
    number, rounds = (1_000, 1) if quick else (5_000, 3)
    if not there(database("PostgreSQL")):
        return
    if there(broker("RabbitMQ")):
        yield from on_rabbitmq(url, number, rounds)
    if there(broker("Redis")):
        yield from on_redis(url, number)


def on_rabbitmq(url: str, number: int, rounds: int) -> Iterator[Figure]:
    """Yield figures of medians, and of single runs with threads and with MariaDB."""
    of = partial(over, url, number, on="RabbitMQ")
    worker, one, two, before = in_turn(
        rounds,
        partial(of, WORKER),
        partial(of, ONE),
        partial(of, TWO),
        partial(over_1, url, number, on="RabbitMQ"),
    )
    where = "on RabbitMQ, PostgreSQL"
    yield against_worker(f"a Celery worker process (prefork) {where}", one, worker)
    yield against_1(f"a Celery worker process (prefork) {where}", one, before)
    few, slow = number // 5, f"{url}slow"
    pair = in_turn(
        1,
        partial(over, slow, few, ONE, on="RabbitMQ"),
        partial(over_1, slow, few, on="RabbitMQ"),
    )
    yield against_1(f"the same, recipients that take {SLOW} ms", *pair)
    yield compared(
        f"two Celery worker processes (prefork) {where}",
        two,
        one,
        against="one",
        target=">=1.6",
        note="database, broker and recipient share the processors with them",
    )
    yield tasks_for_a_delivery(url, number, on="RabbitMQ")
    yield against_worker(f"a Celery worker process (threads) {where}", [of(THREADS)], worker)
    if there(database("MariaDB")):
        pair = in_turn(1, partial(of, ONE, store="MariaDB"), partial(of, WORKER, store="MariaDB"))
        yield against_worker("a Celery worker process (prefork) on RabbitMQ, MariaDB", *pair)


def on_redis(url: str, number: int) -> Iterator[Figure]:
    """Yield figures of single runs."""
    of = partial(over, url, number, on="Redis")
    one, worker, before = in_turn(
        1, partial(of, ONE), partial(of, WORKER), partial(over_1, url, number, on="Redis")
    )
    name = "a Celery worker process (prefork) on Redis, PostgreSQL"
    yield against_worker(name, one, worker)
    yield against_1(name, one, before)
    yield tasks_for_a_delivery(url, number, on="Redis")


def there(place: AbstractContextManager[object]) -> bool:
    """Return whether a database or a broker is available."""
    with place as found:
        return found is not None


# -- runs


def in_turn(rounds: int, *ways: Callable[[], Run]) -> Sequence[Sequence[Run]]:
    """Return the runs of each kind, in rounds with one run of each."""
    return list(zip(*([way() for way in ways] for _ in range(rounds)), strict=True))


def over(
    url: str, number: int, command: Sequence[str], *, on: str, store: str = "PostgreSQL"
) -> Run:
    """Run workers on messages sent before, in a new database and a new queue."""
    with database(store) as own, broker(on) as told:
        # The caller has checked that both are available.
        assert own is not None
        assert told is not None
        variables = {**told, "BENCH_DATABASE": own}
        send("fill", url, number, variables)
        return delivered(number, *command, **variables)


def over_1(url: str, number: int, *, on: str) -> Run:
    """Run Thorn 1.x's tasks, which were sent before."""
    with broker(on) as told:
        assert told is not None
        output("celery_peer.py", "fill", url, str(number), **told)
        return dispatched(number, **told)


def send(way: str, url: str, number: int, variables: Mapping[str, str]) -> None:
    """Subscribe the URL, and send messages: in large transactions (`fill`) or one each (`send`)."""
    output("celery_thorn.py", way, url, str(number), **variables)


# -- figures


def compared(
    name: str,
    subjects: Sequence[Run],
    peers: Sequence[Run],
    *,
    against: str,
    target: str,
    note: str = "",
) -> Figure:
    """Return a figure of alternating runs, with the processor time of each."""

    def cost(runs: Sequence[Run]) -> str:
        worker = statistics.median(run.worker for run in runs)
        return f"{worker:.2f} + {statistics.median(run.database for run in runs):.2f} ms"

    told = (
        f"processor time of a delivery, worker + database: {cost(subjects)} against {cost(peers)}"
    )
    return Figure(
        name=name,
        subject=statistics.median(run.rate for run in subjects),
        peer=statistics.median(run.rate for run in peers),
        against=against,
        unit="/s",
        ratio=statistics.median(
            subject.rate / peer.rate for subject, peer in zip(subjects, peers, strict=False)
        ),
        target=target,
        note=f"{note}; {told}" if note else told,
    )


def against_worker(name: str, subjects: Sequence[Run], peers: Sequence[Run]) -> Figure:
    """Return a figure with `thorn worker` as the peer."""
    against = "`thorn worker` on the same store"
    return compared(name, subjects, peers, against=against, target=">=0.7")


def against_1(name: str, subjects: Sequence[Run], peers: Sequence[Run]) -> Figure:
    """Return a figure with Thorn 1.x's tasks as the peer."""
    return compared(
        f"{name}, against Thorn 1.x's way",
        subjects,
        peers,
        against="tasks of ten deliveries, which a requests.Session makes one by one, and"
        " which are not recorded",
        target=">=4",
    )


def tasks_for_a_delivery(url: str, number: int, *, on: str) -> Figure:
    """Count the tasks through the broker, while a process sends at full speed."""
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
        name=f"tasks through {on} for a delivery, with messages sent separately at the same time",
        subject=tasks,
        peer=number,
        against="one for each delivery",
        unit="",
        ratio=tasks / number,
        target="<=0.1",
        note=f"{kinds}; {run.rate:,.0f} deliveries/s",
    )
