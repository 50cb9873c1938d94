"""The demo's second part: a worker is killed, another takes over, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import attrs

from thorn_core import receiver
from thorn_core.app import Thorn
from thorn_core.cli.common import counted, progress_bar
from thorn_core.cli.worker_process import WorkerProcess
from thorn_core.errors import ThornError
from thorn_core.ports.store import Transactional
from thorn_core.queries import delivery_query
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.values import DeliveryState

# Number of transactions, of which every fifth is rolled back, and messages in each.
TRANSACTIONS = 25
EACH = 10
# The recipient answers this many requests, then hangs until the worker is killed.
ANSWERED = 60
PATIENCE = 30.0


@attrs.frozen(kw_only=True)
class Orders:
    """Numbers of the sent orders.

    Attributes:
        committed: Orders in committed transactions.
        undone: Orders in transactions that were rolled back.
    """

    committed: frozenset[int]
    undone: frozenset[int]


def run_crash(
    app: Thorn,
    worker: WorkerProcess,
    start_worker: Callable[[], WorkerProcess],
    say: Callable[[str], None],
) -> Mapping[str, bool]:
    """Kill a worker while it delivers, let another one take over, and check the results.

    Args:
        app: The app that sends; worker processes share its store.
        worker: The worker to kill.
        start_worker: Starts another worker.
        say: Called with each line of output.

    Returns:
        The checks, each with its result.
    """
    began = monotonic()

    def tell(what: str) -> None:
        say(f"{monotonic() - began:5.1f} s  {what}")

    with LocalRecipient() as recipient:
        recipient.hang()
        recipient.answer(times=ANSWERED)
        subscription = app.subscribe("order.*", recipient.url)
        orders = _send(app)
        undone = f", {len(orders.undone)} rolled back" if orders.undone else ""
        tell(f"{len(orders.committed)} orders committed{undone}")

        with suppress(TimeoutError):
            recipient.wait_for(ANSWERED + 1, PATIENCE)
        app.wait_until(lambda: _delivered(app) >= ANSWERED, PATIENCE)
        worker.kill()
        recorded = {d.message_id for d in app.deliveries(event="order.*", state="delivered")}
        in_flight = len(recipient.received) - len(recorded)
        tell(f"worker {worker.pid} killed: {len(recorded)} delivered, {in_flight} in flight")

        recipient.answer()
        with start_worker() as other:
            tell(
                f"worker {other.pid} started; takes over from the dead worker after"
                f" {app.settings.lease:g} s"
            )
            _follow(app, other, len(orders.committed))
            stopped = other.stop() == 0
        tell(f"{_delivered(app)} delivered")
        return {
            **_check(recipient, orders, recorded, subscription.secret or ""),
            "the second worker exited cleanly on SIGTERM": stopped,
        }


def _send(app: Thorn) -> Orders:
    """Send orders in transactions; roll some back, if the store supports transactions."""
    committed: set[int] = set()
    undone: set[int] = set()
    for start in range(0, TRANSACTIONS * EACH, EACH):
        numbers = range(start, start + EACH)
        if not isinstance(app.store, Transactional):
            _send_some(app, numbers, None)
            committed.update(numbers)
            continue
        with suppress(_UndoneError), app.store.transaction() as transaction:
            _send_some(app, numbers, transaction)
            if start // EACH % 5 == 2:
                undone.update(numbers)
                raise _UndoneError
            committed.update(numbers)
    return Orders(committed=frozenset(committed), undone=frozenset(undone))


class _UndoneError(Exception):
    """Raised to roll a transaction back."""


def _send_some(app: Thorn, numbers: range, within: Any) -> None:
    for number in numbers:
        app.send("order.paid", {"number": number}, within=within)


def _delivered(app: Thorn) -> int:
    state = DeliveryState.DELIVERED
    return app.store.count(delivery_query(None, None, "order.*", state, None, None))


def _follow(app: Thorn, worker: WorkerProcess, total: int) -> None:
    """Wait until all orders are delivered."""
    with progress_bar("Delivering", total) as progress:

        def done() -> bool:
            delivered = _delivered(app)
            progress(delivered)
            return delivered >= total or not worker.running

        app.wait_until(done, PATIENCE)


def _check(
    recipient: LocalRecipient, orders: Orders, recorded: set[str], secret: str
) -> dict[str, bool]:
    """Check the requests with the recipient's code."""
    arrived: Counter[str] = Counter()
    numbers: set[int] = set()
    refused = 0
    for request in recipient.received:
        try:
            message = receiver.verify(request.body, request.headers, secret)
        except ThornError:
            refused += 1
            continue
        arrived[message.id] += 1
        numbers.add(message.payload["number"])
    twice = {message_id for message_id, times in arrived.items() if times > 1}
    checks = {"every committed order arrived": numbers >= orders.committed}
    if orders.undone:
        checks["no rolled-back order arrived"] = not numbers & orders.undone
    several = counted(len(twice), "order", "orders")
    return {
        **checks,
        f"only orders in flight arrived twice, with the same webhook-id ({several})": (
            bool(twice) and not twice & recorded and len(arrived) == len(numbers)
        ),
        f"every signature of an order verifies ({arrived.total()} requests)": (
            refused == 0 and bool(arrived)
        ),
    }
