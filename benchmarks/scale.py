"""A model of scaling: `python benchmarks/scale.py [check] [ceilings] [limits] [levels]`.

`check` runs workers on a filled database and compares the measured rate with the model
(scale_model.py). `ceilings` computes the maximum rate of each part alone. `limits` gives the model
unlimited work, and shows the bottleneck. `levels` computes the resources for several rates. They
print the tables of docs/scale.md.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence

import attrs
from common import PAYLOAD, local_settings
from databases import database
from durable import drained
from scale_costs import Cost, Costs
from scale_model import Model, Site, World
from server import running

from thorn_core import Event, Settings, Thorn, buffer_events
from thorn_sqlalchemy import SqlStore

# Planned utilisation of a processor; the rest is reserved for peaks.
PLANNED = 0.5
# Maximum processors of one database server.
CORES = 16
LEVELS = (1_000, 10_000, 100_000, 1_000_000)
# Maximum simulated seconds, and messages of one database.
LONG, MANY = 20.0, 100_000
DAY = 86_400


def table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(head) + " |")
    print("| " + " | ".join("---" for _ in head) + " |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()


# -- arithmetic


@attrs.frozen
class Each:
    """Milliseconds of processor time per delivery.

    Attributes:
        worker: Time of a worker.
        database: Time of the database, including sending and purging.
    """

    worker: float
    database: float


def each(costs: Costs, chunk: int = 250) -> Each:
    """Return the cost of a delivery whose first attempt succeeds.

    Messages are sent separately, and chunks are full.
    """

    def of(cost: Cost, rows: int, *, client: bool) -> float:
        if client:
            return cost.client / rows + cost.client_each
        return cost.server / rows + cost.server_each

    steps = (costs.lease, costs.insert)
    return Each(
        worker=costs.request + sum(of(cost, chunk, client=True) for cost in steps),
        database=sum(of(cost, chunk, client=False) for cost in (*steps, costs.purge))
        + of(costs.send, 1, client=False),
    )


def taken(cost: Cost, rows: int) -> float:
    """Return the milliseconds of a call with a number of rows."""
    each = cost.client_each + cost.server_each + cost.wait_each
    return cost.client + cost.server + cost.wait + rows * each


def under_way(world: World) -> float:
    """Return the average seconds of a request, except to recipients that don't respond.

    A process sends those only one request at a time.
    """
    answer = world.median * math.exp(world.spread**2 / 2)
    if world.tail:
        answer *= world.tail / (world.tail - 1)
    return (1 - world.slow - world.down) * answer + world.slow * 5


# -- model and reality


# The recipients of the benchmarks: twenty equal ones, which respond immediately.
LOOPBACK = World(
    recipients=20, skew=0, median=0.0001, spread=0, tail=None, down=0, limited=0, slow=0
)


def measured(number: int, workers: int) -> float:
    """Return the measured deliveries per second of worker processes to twenty recipients."""
    with running(LOOPBACK.recipients) as port, database("PostgreSQL") as store:
        if store is None:
            raise SystemExit("PostgreSQL is required; see benchmarks/README.md")
        settings = local_settings()
        with Thorn(store=SqlStore(store), dispatcher="outbox", settings=settings) as app:
            app.store.create()
            events = []
            for n in range(LOOPBACK.recipients):
                events.append(Event(f"a.{n}", app=app))
                app.subscribe(f"a.{n}", f"http://127.0.0.{n + 1}:{port}/")
            for start in range(0, number, 1000):
                with buffer_events():
                    for n in range(start, start + 1000):
                        events[n % len(events)].send(PAYLOAD)
        return drained(store, "fast", number, workers)


def modelled(costs: Costs, number: int, workers: int, cores: int) -> float:
    """Return the modelled deliveries per second, with all parts on a number of processors."""
    site = Site(processes=workers, cores=cores, shared=True, settings=local_settings())
    model = Model(costs, LOOPBACK, site)
    model.fill(number)
    step, until = 0.02, 0.0
    while model.database.delivered < number:
        until += step
        model.run(until)
    return number / until


def check(costs: Costs) -> Iterator[Sequence[object]]:
    """Compare the model with medians of three runs, on this machine's two processors."""
    number = 30_000
    for workers in (1, 2):
        real = statistics.median(measured(number, workers) for _ in range(3))
        model = modelled(costs, number, workers, 2)
        yield workers, f"{real:,.0f}/s", f"{model:,.0f}/s", f"{100 * (model / real - 1):+.0f} %"


# -- each part alone

# PostgreSQL's default.
CONNECTIONS = 100
# Maximum per worker process; one of them waits for notifications.
OF_A_PROCESS = 6
# Deliveries that a purge deletes per transaction.
PURGED = 500


def ceilings(costs: Costs) -> Iterator[Sequence[object]]:
    """Print the maximum rate of each part, if no other part limits it."""
    cost, settings = each(costs), Settings()
    by_requests = settings.concurrency / under_way(World())
    processes = CONNECTIONS // OF_A_PROCESS
    purge = taken(costs.purge, PURGED)
    for part, rate in (
        (f"concurrent requests of a process (`concurrency` {settings.concurrency})", by_requests),
        ("CPU of a worker process", 1000 / cost.worker),
        (f"{CONNECTIONS} connections, for {processes} processes", processes * by_requests),
        ("a database with 4 cores", 4 * 1000 / cost.database),
        (f"a database with {CORES} cores", CORES * 1000 / cost.database),
        ("consecutive purges", PURGED * 1000 / purge),
    ):
        yield part, f"{rate:,.0f}/s"


# -- unlimited work


def limits(costs: Costs) -> Iterator[Sequence[object]]:
    """Print the rate and the utilisation of all parts with a large backlog."""
    for cores in (4, CORES):
        for processes in (1, 4, 16, 32, 64):
            site = Site(processes=processes, cores=cores)
            model = Model(costs, World(), site)
            model.fill(processes * 8_000)
            model.run(5.0)
            yield (
                cores,
                processes,
                f"{model.database.delivered / 5:,.0f}/s",
                *busy(model, 5.0),
            )


def busy(model: Model, seconds: float) -> tuple[str, str]:
    """Return the utilisation of workers and database."""
    workers = statistics.mean(process.cpu.used for process in model.processes) / seconds
    database = model.cores.used / seconds / model.cores.number
    return f"{workers:.0%}", f"{database:.0%}"


# -- resources


@attrs.frozen(kw_only=True)
class Plan:
    """The resources for a rate.

    Attributes:
        rate: Deliveries per second.
        databases: Number of database servers.
        cores: Processors of each database server.
        processes: Worker processes per database server.
    """

    rate: int
    databases: int
    cores: int
    processes: int


def plan(rate: int, cost: Each, world: World, concurrency: int) -> Plan:
    """Return the smallest plan with room for peaks."""
    cores = rate * cost.database / 1000 / PLANNED
    databases = math.ceil(cores / CORES)
    by_processor = rate * cost.worker / 1000 / PLANNED
    by_requests = rate * under_way(world) / concurrency / PLANNED
    return Plan(
        rate=rate,
        databases=databases,
        cores=max(2 ** math.ceil(math.log2(cores / databases)), 1),
        processes=math.ceil(max(by_processor, by_requests) / databases),
    )


def levels(costs: Costs) -> Iterator[Sequence[object]]:
    """Print the resources at each level, and the behaviour of a database and its workers."""
    cost = each(costs)
    for rate in LEVELS:
        wanted = plan(rate, cost, World(), Settings().concurrency)
        # One recipient per delivery and second.
        world = World(recipients=rate // wanted.databases)
        model = Model(costs, world, Site(processes=wanted.processes, cores=wanted.cores))
        seconds = min(LONG, MANY * wanted.databases / rate)
        model.send(rate / wanted.databases, seconds)
        model.run(seconds)
        yield (
            f"{rate:,}/s",
            wanted.databases,
            wanted.cores,
            f"{wanted.databases * wanted.processes:,}",
            *busy(model, seconds),
            f"{1000 * model.quantile(0.5):,.0f} ms",
            f"{1000 * model.quantile(0.99):,.0f} ms",
            f"{rate * DAY * costs.kept / 1e12:,.2f} TB",
            f"{rate * costs.logged / 1e6:,.0f} MB/s",
        )


def main(*topics: str) -> None:
    """Print the given parts, or all."""
    costs = Costs.read()
    wanted = topics or ("check", "ceilings", "limits", "levels")
    cost = each(costs)
    print(
        f"A delivery costs {cost.worker:.2f} ms of worker CPU and {cost.database:.2f} ms of"
        f" database CPU: {1000 / cost.worker:,.0f}/s per process, {1000 / cost.database:,.0f}/s per"
        f" database core. A request takes {under_way(World()):.2f} s on average.\n"
    )
    if "check" in wanted:
        table(("processes", "measured", "model", "error"), check(costs))
    if "ceilings" in wanted:
        table(("part", "deliveries"), ceilings(costs))
    if "limits" in wanted:
        head = ("database cores", "processes", "delivered", "workers busy", "database busy")
        table(head, limits(costs))
    if "levels" in wanted:
        head = (
            *("deliveries", "databases", "cores of each", "worker processes"),
            *("workers busy", "databases busy"),
            *("median latency", "99th percentile", "history per day", "write-ahead log"),
        )
        table(head, levels(costs))


if __name__ == "__main__":
    main(*sys.argv[1:])
