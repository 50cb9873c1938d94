"""Costs of the steps of a delivery: `python benchmarks/scale_costs.py [--write]` measures them.

It needs PostgreSQL and an otherwise idle machine. `--write` writes scale_costs.json, which scale.py
reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import attrs
import cpu
from common import PAYLOAD, local_settings
from databases import analyze, database
from server import running
from sqlalchemy import text

from thorn_core import Attempt, Completion, Event, Message, Outcome, Routing, Thorn
from thorn_core.codecs import dump_json
from thorn_core.delivery import in_flight, make_delivery
from thorn_core.keys import attempt_id, new_id
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.stores import DeliveryQuery
from thorn_core.transports.fast import FastTransport
from thorn_core.values import Claim, DeliveryState
from thorn_core.worker import new_event_loop
from thorn_sqlalchemy import SqlStore

FILE = Path(__file__).with_name("scale_costs.json")
RECIPIENTS = 20
FEW, MANY, CALLS = 25, 250, 100
REQUESTS = 20_000
LEASE = timedelta(seconds=60)


@attrs.frozen(kw_only=True)
class Cost:
    """Milliseconds of a call of the store: per call, and (`_each`) per row.

    Attributes:
        client: Processor time of the caller.
        server: Processor time of the database server.
        wait: Other time: disk and network.
    """

    client: float
    server: float
    wait: float
    client_each: float
    server_each: float
    wait_each: float

    @classmethod
    def of(cls, few: Sequence[float], many: Sequence[float]) -> Self:
        """Derive the cost of a call from measurements with FEW and with MANY rows."""
        values: dict[str, float] = {}
        for name, low, high in zip(("client", "server", "wait"), few, many, strict=True):
            each = max((high - low) / (MANY - FEW), 0.0)
            values |= {name: round(max(low - each * FEW, 0.0), 3), f"{name}_each": round(each, 4)}
        return cls(**values)


@attrs.frozen(kw_only=True)
class Costs:
    """The costs of a delivery.

    Attributes:
        send: Writing messages in a transaction.
        lease: Leasing messages, and finding their subscriptions.
        insert: Writing the deliveries and attempts of completed first attempts.
        purge: Deleting finished deliveries and their messages.
        route: Leasing messages, and writing a pending delivery for each.
        claim: Leasing pending deliveries.
        record: Recording their completed attempts.
        request: Milliseconds of a worker's processor time for a request: sign, send, read, judge.
        recipient: Milliseconds of processor time of the benchmark's recipient for a request.
        kept: Bytes of a delivery, its message and its attempt in the database.
        logged: Bytes in the write-ahead log per delivery, from send to completion.
    """

    send: Cost
    lease: Cost
    insert: Cost
    purge: Cost
    route: Cost
    claim: Cost
    record: Cost
    request: float
    recipient: float
    kept: float
    logged: float

    @classmethod
    def read(cls) -> Self:
        """Read the costs from the file."""
        told = json.loads(FILE.read_text("utf-8"))
        steps = {name: Cost(**value) for name, value in told.items() if isinstance(value, dict)}
        return cls(**{**told, **steps})


# -- measurements


def steps(store: SqlStore, size: int) -> Mapping[str, Callable[[int], object]]:
    """Return the steps of a message; each is called CALLS times, with a number of rows."""
    data, claims = dump_json(PAYLOAD), list[Sequence[Claim]]()
    direct: list[Sequence[Claim]] = []

    def send(call: int) -> None:
        now = datetime.now(UTC)
        names = (f"a.{n % RECIPIENTS}" for n in range(call * size, (call + 1) * size))
        messages = [Message(id=new_id("msg", now), event=e, data=data, at=now) for e in names]
        store.publish(messages, within=IMMEDIATE)

    def lease(call: int) -> None:
        now, token = datetime.now(UTC), f"d{size}.{call}"
        messages = store.claim_messages(now=now, lease=LEASE, limit=size, token=token)
        pages = store.matching_each(messages, limit=1000)
        pairs = [(m, s) for m, page in zip(messages, pages, strict=True) for s in page]
        ready = store.ready({s.id for _, s in pairs}, now=now)
        assert len(pairs) == size, len(pairs)
        assert len(ready) == min(size, RECIPIENTS)
        direct.append(
            [
                Claim(
                    delivery=in_flight(make_delivery(message, subscription, now)),
                    message=message,
                    subscription=subscription,
                    token=token,
                    direct=True,
                )
                for message, subscription in pairs
            ]
        )

    def insert(call: int) -> None:
        now = datetime.now(UTC)
        routed = [claim.message.id for claim in direct[call]]
        store.record([finished(claim, now) for claim in direct[call]], routed=routed)

    def route(_: int) -> None:
        now = datetime.now(UTC)
        messages = store.claim_messages(now=now, lease=LEASE, limit=size)
        pages = store.matching_each(messages, limit=1000)
        store.route(
            [
                Routing(message=message, deliveries=[make_delivery(message, s, now) for s in page])
                for message, page in zip(messages, pages, strict=True)
            ]
        )

    def claim(call: int) -> None:
        leased = store.claim(
            now=datetime.now(UTC),
            lease=LEASE,
            limit=size,
            token=f"t{size}.{call}",
            per_recipient=32,
            busy={},
        )
        assert len(leased) == size, len(leased)
        claims.append(leased)

    def record(call: int) -> None:
        now = datetime.now(UTC)
        store.record([finished(claim, now) for claim in claims[call]])

    def purge(_: int) -> None:
        query = DeliveryQuery(until=datetime.now(UTC), states=(DeliveryState.DELIVERED,))
        assert store.purge(query, limit=size) == size

    return {
        "send": send,
        "lease": lease,
        "insert": insert,
        "purge": purge,
        "": send,  # for the steps below
        "route": route,
        "claim": claim,
        "record": record,
    }


def finished(claim: Claim, now: datetime) -> Completion:
    """Return the completion of a successful delivery."""
    attempt = Attempt(
        id=attempt_id(claim.delivery.id, now),
        delivery_id=claim.delivery.id,
        number=1,
        at=now,
        duration=0.05,
        status=204,
    )
    outcome = Outcome(state=DeliveryState.DELIVERED)
    return Completion(claim=claim, outcome=outcome, attempt=attempt, at=now)


def of_calls(size: int) -> tuple[dict[str, Sequence[float]], dict[str, float]]:
    """Return milliseconds (client, server, other) of each step, and bytes per row."""
    taken: dict[str, Sequence[float]] = {}
    with database("PostgreSQL") as url:
        if url is None:
            raise SystemExit("PostgreSQL is not available")
        with Thorn(store=SqlStore(url), dispatcher="outbox", settings=local_settings()) as app:
            app.store.create()
            for n in range(RECIPIENTS):
                app.subscribe(f"a.{n}", f"http://127.0.0.{n + 1}/")
            before = sizes(app.store)
            for name, step in steps(app.store, size).items():
                if name == "purge":
                    after = sizes(app.store)
                analyze(app.store.engine, *(table.name for table in app.store.tables.all()))
                begun = reading()
                for call in range(CALLS):
                    step(call)
                wall, client, server = (
                    1000 * (b - a) / CALLS for a, b in zip(begun, reading(), strict=True)
                )
                if name:
                    taken[name] = client, server, max(wall - client - server, 0.0)
    rows = CALLS * size
    kept, logged = (round((b - a) / rows) for a, b in zip(before, after, strict=True))
    return taken, {"kept": kept, "logged": logged}


def reading() -> tuple[float, float, float]:
    """Return the seconds of the clock, of this process and of the database server."""
    return time.perf_counter(), time.process_time(), cpu.used_by_name("postgres")


def sizes(store: SqlStore) -> tuple[float, float]:
    """Return the bytes of the history, and of the write-ahead log so far.

    Rows of outbox and queue are deleted, and their space is reused.
    """
    kept = (store.tables.messages, store.tables.deliveries, store.tables.attempts)
    size = " + ".join(f"pg_total_relation_size('{table.name}')" for table in kept)
    asked = f"SELECT {size}, pg_current_wal_lsn() - '0/0'::pg_lsn"
    with store.engine.connect() as connection:
        bytes_, logged = connection.execute(text(asked)).one()
    return float(bytes_), float(logged)


def of_requests() -> dict[str, float]:
    """Return the milliseconds of worker and recipient per request, with the memory store."""
    with running() as port, asyncio.Runner(loop_factory=new_event_loop) as runner:
        before = cpu.used_by_name("server")
        worker = runner.run(drained(f"http://127.0.0.1:{port}/"))
        recipient = cpu.used_by_name("server") - before
    told = {"request": worker, "recipient": recipient}
    return {name: round(1000 * seconds / REQUESTS, 4) for name, seconds in told.items()}


async def drained(url: str) -> float:
    """Return the seconds of this process for delivering messages."""
    app = Thorn(dispatcher="outbox", settings=local_settings(), transport=FastTransport)
    app.subscribe("a.*", url)
    happened, used = Event("a.b", app=app), 0.0
    async with app.worker() as worker:
        for _ in range(REQUESTS // 1000):
            for _ in range(1000):
                happened.send(PAYLOAD)
            begun = time.process_time()
            await worker.adrain()
            used += time.process_time() - begun
    app.close()
    return used


def main(*, write: bool) -> None:
    """Measure, print, and optionally write the costs."""
    few, _ = of_calls(FEW)
    many, space = of_calls(MANY)
    calls = {name: Cost.of(few[name], many[name]) for name in few}
    told = json.dumps(attrs.asdict(Costs(**calls, **of_requests(), **space)), indent=2) + "\n"
    print(told)
    if write:
        FILE.write_text(told, "utf-8")


if __name__ == "__main__":
    main(write="--write" in sys.argv[1:])
