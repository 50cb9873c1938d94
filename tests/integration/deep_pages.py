"""A long list of deliveries, and how many rows MariaDB reads for a page of it; of any store."""

from __future__ import annotations

from datetime import timedelta

from thorn_core import DeliveryQuery, DeliveryState, Routing
from thorn_core.delivery import make_delivery
from thorn_core.testing.store_contract import NOW, make_message, make_subscription
from thorn_core.unit_of_work import IMMEDIATE

NUMBER = 2000
PAGE = 50
SUBSCRIPTION = make_subscription(1)
# Some of all that a list may be asked for; each finds every delivery.
QUERIES = {
    "all": {},
    "since": {"since": NOW - timedelta(days=1)},
    "state": {"states": (DeliveryState.PENDING,)},
    "event": {"event": "article.*"},
}
READ = "SHOW SESSION STATUS LIKE 'Handler_read%'"


def fill(store):
    """Make many deliveries to one subscription, one each second, and some to another."""
    store.add_subscription(SUBSCRIPTION)
    other = make_subscription(2)
    store.add_subscription(other)
    messages = [make_message(n, at=NOW + timedelta(seconds=n)) for n in range(NUMBER)]
    store.publish(messages, within=IMMEDIATE)
    store.route(
        [
            Routing(
                message=message,
                deliveries=[
                    make_delivery(message, to, message.at)
                    for to in (SUBSCRIPTION, other)[: 1 + (number % 20 == 0)]
                ],
                complete=True,
            )
            for number, message in enumerate(messages)
        ]
    )


def check_a_page_far_behind(store, query, newest_first, counted):
    """A page after nine tenths of the list reads few rows.

    Args:
        store: The store, filled.
        query: What the list is asked for, by name.
        newest_first: Which way.
        counted: Gets the query, the place and the limit; gives back a page and the rows read.
    """
    asked = DeliveryQuery(subscription_id=SUBSCRIPTION.id, **QUERIES[query])
    every = store.deliveries(asked, limit=NUMBER + 1, newest_first=newest_first)
    assert len(every) == NUMBER
    place = NUMBER * 9 // 10
    page, rows = counted(asked, every[place - 1].place, PAGE)
    assert list(page) == list(every[place : place + PAGE])
    assert rows < 3 * PAGE


def rows_of(status):
    """Rows that were read, by what the server says."""
    return sum(int(value) for _, value in status)
