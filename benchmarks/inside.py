"""Sending, matching and claiming, without any network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from common import PAYLOAD, Figure, alternate

from thorn_core import (
    Completion,
    Event,
    MemoryStore,
    Message,
    Outcome,
    Routing,
    Subscription,
    Thorn,
)
from thorn_core.codecs import dump_json
from thorn_core.delivery import make_delivery
from thorn_core.keys import new_id
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.values import DeliveryState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def send(number: int) -> float:
    """Return the microseconds of a send."""
    app = Thorn(dispatcher="outbox")
    event = Event("a.b", app=app)
    begun = time.perf_counter()
    for _ in range(number):
        event.send(PAYLOAD)
    took = time.perf_counter() - begun
    app.close()
    return took / number * 1e6


def encode_and_append(number: int) -> float:
    """Return the microseconds of encoding a payload and appending it to a list."""
    kept: list[bytes] = []
    begun = time.perf_counter()
    for _ in range(number):
        kept.append(dump_json(PAYLOAD))  # noqa: PERF401 - measures the append
    return (time.perf_counter() - begun) / number * 1e6


def subscribed(number: int) -> MemoryStore:
    """Create a store with subscriptions, of which ten match `article.created`."""
    store = MemoryStore()
    for index in range(number):
        matching = index % (number // 10) == 0
        pattern = "article.*" if matching else f"topic{index % 1000}.*"
        store.add_subscription(
            Subscription(
                id=new_id("sub", NOW),
                events=(pattern,),
                url="https://example.com/",
                owner=str(index % 5000),
                created_at=NOW,
                updated_at=NOW,
            )
        )
    return store


def match(store: MemoryStore, sender: str | None) -> float:
    """Return the microseconds of finding an event's subscriptions."""
    rounds = 2000
    begun = time.perf_counter()
    for _ in range(rounds):
        store.matching("article.created", sender=sender, after=None, limit=100)
    return (time.perf_counter() - begun) / rounds * 1e6


def waiting(number: int) -> MemoryStore:
    """Create a store with due deliveries to 1,000 recipients."""
    store = MemoryStore(backlog=2 * number + 10)
    subscriptions = [
        Subscription(
            id=new_id("sub", NOW),
            events=("a.*",),
            url=f"https://r{index}.example.com/",
            created_at=NOW,
            updated_at=NOW,
        )
        for index in range(1000)
    ]
    for _ in range(number // 1000):
        message = Message(id=new_id("msg", NOW), event="a.b", data=b"{}", at=NOW)
        store.publish([message], within=IMMEDIATE)
        deliveries = [make_delivery(message, s, NOW) for s in subscriptions]
        store.route([Routing(message=message, deliveries=deliveries)])
    return store


def claim(store: MemoryStore) -> float:
    """Return the microseconds of claiming and recording a delivery."""
    number = 0
    begun = time.perf_counter()
    for batch in range(40):
        claims = store.claim(
            now=NOW,
            lease=timedelta(seconds=60),
            limit=100,
            token=str(batch),
            per_recipient=10,
            busy={},
        )
        outcome = Outcome(state=DeliveryState.DELIVERED)
        store.record([Completion(claim=c, outcome=outcome, attempt=None, at=NOW) for c in claims])
        number += len(claims)
    return (time.perf_counter() - begun) / number * 1e6


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    rounds = 3 if quick else 7
    number = 5_000 if quick else 20_000
    peer, subject, ratio = alternate(
        lambda: encode_and_append(number), lambda: send(number), rounds
    )
    yield Figure(
        name="Event.send, outbox, memory store",
        subject=subject,
        peer=peer,
        against="encode and append to a list",
        unit="µs",
        ratio=ratio,
        target="<5",
    )
    few, many = 1_000, 50_000 if quick else 1_000_000
    small, large = subscribed(few), subscribed(many)
    for who, sender in (("any sender", None), ("one sender", "0")):
        peer, subject, ratio = alternate(
            lambda sender=sender: match(small, sender),
            lambda sender=sender: match(large, sender),
            rounds,
        )
        yield Figure(
            name=f"matching {many:,} subscriptions, {who}",
            subject=subject,
            peer=peer,
            against=f"{few:,}",
            unit="µs",
            ratio=ratio,
            target="<2",
        )
    del small, large
    few, many = 10_000, 50_000 if quick else 1_000_000
    small, large = waiting(few), waiting(many)
    peer, subject, ratio = alternate(lambda: claim(waiting(few)), lambda: claim(large), 3)
    yield Figure(
        name=f"claim and record, {many:,} pending",
        subject=subject,
        peer=peer,
        against=f"{few:,}",
        unit="µs",
        ratio=ratio,
        target="<2",
    )
