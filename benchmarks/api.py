"""The cost of a page deep in a list, compared with the first page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qs

import attrs
from common import Figure, alternate
from databases import NAMES, analyze, database

from thorn_core import DeliveryQuery, DeliveryState, Subscription, Thorn
from thorn_core.api import ApiRequest, Resource
from thorn_core.api.paging import make_cursor
from thorn_core.keys import delivery_id, first_key, message_id, recipient_key
from thorn_core.stores.sql.rows import DELIVERED, FAILED, micros
from thorn_core.stores.sql.schema import DELIVERIES, MESSAGES, RECIPIENTS
from thorn_core.stores.sql.statements import Statements
from thorn_sqlalchemy import SqlStore

START = datetime(2026, 3, 1, tzinfo=UTC)
SUBSCRIPTION = "sub_" + "7" * 32
# Of a hundred deliveries, five have failed, and ten have another event.
FAILING = 20
OTHERS = 10
FILTERS: Mapping[str, DeliveryQuery] = {
    "": DeliveryQuery(subscription_id=SUBSCRIPTION),
    "state=failed": DeliveryQuery(subscription_id=SUBSCRIPTION, states=(DeliveryState.FAILED,)),
    "event=order.*": DeliveryQuery(subscription_id=SUBSCRIPTION, event="order.*"),
    "since=2026-03-01T00:00:01Z": DeliveryQuery(
        subscription_id=SUBSCRIPTION, since=START + timedelta(seconds=1)
    ),
}


def fill(store: SqlStore, number: int) -> None:
    """Create finished deliveries to one subscription, one per millisecond."""
    store.add_subscription(
        Subscription(
            id=SUBSCRIPTION,
            events=("*",),
            url="https://example.com/",
            owner="ada",
            secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
            created_at=START,
            updated_at=START,
        )
    )
    recipient = recipient_key(SUBSCRIPTION)
    row = (recipient, SUBSCRIPTION, "ada", "https://example.com:443", None, 0, 0, 0, None, None)
    store.database.run(lambda s: s.insert(RECIPIENTS, [row]))
    for first in range(0, number, 20_000):
        some = range(first, min(first + 20_000, number))
        store.database.run(partial(insert, numbers=some, recipient=recipient))
    analyze(store.engine, store.tables.messages.name, store.tables.deliveries.name)


def insert(statements: Statements, *, numbers: range, recipient: int) -> None:
    """Insert the messages and deliveries with these numbers."""
    messages, deliveries = [], []
    for n in numbers:
        key, at = key_of(n), micros(START) + 1000 * n
        event = "order.paid" if n % OTHERS == 3 else "article.changed"
        messages.append((key, event, b"{}", at, None, None, None, None))
        state = FAILED if n % FAILING == 7 else DELIVERED
        delivery = key + recipient.to_bytes(8, "big")
        deliveries.append((delivery, recipient, state, 1, at, at, None, None))
    statements.insert_fast(MESSAGES, messages)
    statements.insert_fast(DELIVERIES, deliveries)


def key_of(n: int) -> bytes:
    """Return the key of a message."""
    return first_key(START + timedelta(milliseconds=n))


@attrs.frozen
class Lists:
    """The list of a subscription's deliveries, as its owner requests it.

    Attributes:
        resource: The REST resource.
        number: Number of deliveries.
        repeats: Number of requests of a page per figure.
    """

    resource: Resource
    number: int
    repeats: int

    def page(self, query: Mapping[str, Sequence[str]]) -> float:
        """Return the milliseconds for a page."""
        request = ApiRequest(
            method="GET", path=f"/hooks/{SUBSCRIPTION}/deliveries/", query=query, owner="ada"
        )
        begun = time.perf_counter()
        for _ in range(self.repeats):
            response = self.resource.handle(request)
        took = (time.perf_counter() - begun) / self.repeats * 1000
        assert response.status == 200, response.body
        assert len(response.json["items"]) == 50
        return took

    def figure(self, name: str, filtered: str, rounds: int) -> Figure:
        """Compare a page after nine tenths of the list with the first page."""
        asked = parse_qs(filtered)
        place = self.number // 10
        scope = ("deliveries", FILTERS[filtered], True)
        cursor = make_cursor(delivery_id(message_id(key_of(place)), SUBSCRIPTION), scope)
        first, deep = asked, {**asked, "cursor": [cursor]}
        for query in (first, deep):
            self.page(query)
        peer, subject, ratio = alternate(lambda: self.page(first), lambda: self.page(deep), rounds)
        words = f" with {filtered}" if filtered else ""
        return Figure(
            name=f"a page of 50{words} after {self.number - place:,} of {self.number:,}, {name}",
            subject=subject,
            peer=peer,
            against="the first page",
            unit="ms",
            ratio=ratio,
            target="<2",
        )


def run(port: int, *, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    number, repeats, rounds = (20_000, 3, 1) if quick else (1_000_000, 5, 7)
    for name in NAMES:
        with database(name) as url:
            if url is None:
                continue
            store = SqlStore(url)
            store.create()
            fill(store, number)
            with Thorn(store=store, dispatcher="outbox", default=False) as app:
                lists = Lists(Resource(app), number, repeats)
                for filtered in FILTERS:
                    yield lists.figure(name, filtered, rounds)
