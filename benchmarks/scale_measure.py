"""What a delivery costs, step by step: `python benchmarks/scale_measure.py [--write]`.

Measures on PostgreSQL, with a server in C as recipient; nothing else should be at work meanwhile.
With `--write` the figures go to scale_costs.json, from which scale.py computes.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import cpu
from common import PAYLOAD, local_settings
from databases import database
from scale_costs import FILE, Cost, Costs
from server import running
from sqlalchemy import text

from thorn_core import Attempt, Event, Message, Outcome, Routing, Settlement, Subscription, Thorn
from thorn_core.codecs import dump_json
from thorn_core.delivery import make_delivery
from thorn_core.stores import DeliveryQuery
from thorn_core.transports.aiohttp import AiohttpTransport
from thorn_core.unit_of_work import IMMEDIATE
from thorn_core.values import Claim, DeliveryState, new_id
from thorn_core.worker import new_event_loop
from thorn_sqlalchemy import SqlStore

# As many as the server of the benchmarks has addresses.
RECIPIENTS = 20
LEASE = timedelta(seconds=60)
FEW, MANY = 10, 100


@attrs.frozen
class Reading:
    """Seconds: of the clock, of this process, of the database server."""

    wall: float
    client: float
    server: float

    @classmethod
    def now(cls) -> Reading:
        """What it is now."""
        return cls(time.perf_counter(), time.process_time(), cpu.used_by_name("postgres"))

    def since(self, earlier: Reading, calls: int) -> Reading:
        """Milliseconds of each call since then."""
        return Reading(
            *(
                1000 * (getattr(self, name) - getattr(earlier, name)) / calls
                for name in ("wall", "client", "server")
            )
        )


# -- the store


class Steps:
    """The steps of a message, each called so often with so many rows.

    Args:
        store: An empty one.
        size: Rows of a call.
        calls: How many.
    """

    def __init__(self, store: SqlStore, size: int, calls: int) -> None:
        self.store, self.size, self.calls = store, size, calls
        self.data = dump_json(PAYLOAD)
        self.claims: list[Sequence[Claim]] = []

    def measured(self) -> Iterator[tuple[str, Reading]]:
        """Each step's name and cost."""
        for name, step in (
            ("send", self.send),
            ("route", self.route),
            ("claim", self.claim),
            ("settle", self.settle),
            ("purge", self.purge),
        ):
            before = Reading.now()
            for number in range(self.calls):
                step(number)
            yield name, Reading.now().since(before, self.calls)

    def send(self, call: int) -> None:
        now = datetime.now(UTC)
        first = call * self.size
        messages = [
            Message(id=new_id("msg", now), event=f"a.{n % RECIPIENTS}", data=self.data, at=now)
            for n in range(first, first + self.size)
        ]
        self.store.publish(messages, within=IMMEDIATE)

    def route(self, _: int) -> None:
        now = datetime.now(UTC)
        messages = self.store.claim_messages(now=now, lease=LEASE, limit=self.size)
        pages = self.store.matching_each(messages, limit=1000)
        self.store.route(
            [
                Routing(message=message, deliveries=[make_delivery(message, s, now) for s in page])
                for message, page in zip(messages, pages, strict=True)
            ]
        )

    def claim(self, call: int) -> None:
        self.claims.append(
            self.store.claim(
                now=datetime.now(UTC),
                lease=LEASE,
                limit=self.size,
                token=f"t{self.size}.{call}",
                per_recipient=32,
                busy={},
            )
        )
        assert len(self.claims[-1]) == self.size, len(self.claims[-1])

    def settle(self, call: int) -> None:
        now = datetime.now(UTC)
        self.store.settle([settled(claim, now) for claim in self.claims[call]])

    def purge(self, _: int) -> None:
        query = DeliveryQuery(until=datetime.now(UTC), states=(DeliveryState.DELIVERED,))
        assert self.store.purge(query, limit=self.size) == self.size


def settled(claim: Claim, now: datetime) -> Settlement:
    """A delivery that went well."""
    attempt = Attempt(
        id=new_id("att", now),
        delivery_id=claim.delivery.id,
        number=1,
        at=now,
        duration=0.05,
        status=204,
    )
    outcome = Outcome(state=DeliveryState.DELIVERED)
    return Settlement(claim=claim, outcome=outcome, attempt=attempt, at=now)


def subscribe(store: SqlStore) -> None:
    """Make the tables, and a subscription to each event, at hosts of their own."""
    store.create()
    now = datetime.now(UTC)
    for number in range(RECIPIENTS):
        store.add_subscription(
            Subscription(
                id=new_id("sub", now),
                events=(f"a.{number}",),
                url=f"https://r{number}.example.com/",
                created_at=now,
                updated_at=now,
            )
        )


def of_store(calls: int) -> dict[str, Cost]:
    """What each step costs."""
    found: dict[int, dict[str, Reading]] = {}
    for size in (FEW, MANY):
        with database("PostgreSQL") as url:
            if url is None:
                raise SystemExit("PostgreSQL isn't there")
            store = SqlStore(url)
            subscribe(store)
            found[size] = dict(Steps(store, size, calls).measured())
            store.close()
    return {name: line(found[FEW][name], found[MANY][name]) for name in found[FEW]}


def line(few: Reading, many: Reading) -> Cost:
    """What a call costs, and a row, if so much is for FEW rows and so much for MANY."""
    values: dict[str, float] = {}
    for name in ("wall", "client", "server"):
        low, high = getattr(few, name), getattr(many, name)
        each = (high - low) / (MANY - FEW)
        values[name] = round(max(low - each * FEW, 0.0), 3)
        values[f"{name}_each"] = round(each, 4)
    return Cost(**values)


def of_space(number: int) -> dict[str, float]:
    """Bytes of a delivery, in the tables and in the write-ahead log."""
    with database("PostgreSQL") as url:
        assert url is not None
        store = SqlStore(url)
        subscribe(store)
        asked = "SELECT pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'::pg_lsn"

        def sizes() -> Sequence[Any]:
            with store.database.engine.connect() as connection:
                return connection.execute(text(asked)).one()

        before = sizes()
        steps = Steps(store, MANY, number // MANY)
        for step in (steps.send, steps.route, steps.claim, steps.settle):
            for call in range(steps.calls):
                step(call)
        after = sizes()
        store.close()
    kept, logged = (round(float(a - b) / number) for a, b in zip(after, before, strict=True))
    return {"kept": kept, "logged": logged}


# -- requests


def of_requests(number: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the worker and of the recipient for a request, from a store in memory."""
    taken = []
    with running() as port:
        for _ in range(rounds):
            before = cpu.used_by_name("server")
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                worker = runner.run(drained(f"http://127.0.0.1:{port}/", number))
            taken.append((worker, cpu.used_by_name("server") - before))
    return {
        name: round(1000 * statistics.median(values) / number, 4)
        for name, values in zip(("request", "recipient"), zip(*taken, strict=True), strict=True)
    }


async def drained(url: str, number: int) -> float:
    """Seconds of this process for delivering so many messages."""
    app = Thorn(dispatcher="outbox", settings=local_settings(), transport=AiohttpTransport)
    app.subscribe("a.*", url)
    event = Event("a.b", app=app)
    used = 0.0
    async with app.worker() as worker:
        for _ in range(number // 1000):
            for _ in range(1000):
                event.send(PAYLOAD)
            begun = time.process_time()
            await worker.adrain()
            used += time.process_time() - begun
    app.close()
    return used


def main(*, write: bool) -> None:
    """Measure, show, and write."""
    costs = Costs(**of_store(200), **of_requests(20_000, 3), **of_space(20_000))
    told = json.dumps(attrs.asdict(costs), indent=2) + "\n"
    print(told)
    if write:
        FILE.write_text(told, "utf-8")


if __name__ == "__main__":
    main(write="--write" in sys.argv[1:])
