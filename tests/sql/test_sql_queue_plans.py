"""By which indexes the queue finds what it looks for, however much there is."""

from __future__ import annotations

import contextlib

import pytest
import thin
from queueing import NOW, Queued, ended, later, subscription

from thorn_core.keys import recipient_key
from thorn_core.stores.sql.rows import micros
from thorn_core.stores.sql.schema import DELIVERIES, MESSAGES, QUEUE, RECIPIENTS
from thorn_core.values import DeliveryState

DUE = 10_000
LARGE = ("queue", "deliveries", "messages")


def fill(queued: Queued, recipients: int) -> None:
    """Many due deliveries, as many that are done, and a message of each."""
    at = micros(NOW)
    to = [subscription(number) for number in range(recipients)]
    keys = [recipient_key(each.id) for each in to]
    deliveries = [
        (n.to_bytes(16, "big") + keys[n // 2 % recipients].to_bytes(8, "big"), n)
        for n in range(2 * DUE)
    ]

    def work(statements):
        statements.insert_fast(
            RECIPIENTS,
            [
                (key, each.id, None, "e.com:443", at, 0, 0, 0, None, None)
                for key, each in zip(keys, to, strict=True)
            ],
        )
        statements.insert_fast(
            MESSAGES,
            [(key[:16], "order.paid", b"{}", at, None, None, None, None) for key, _ in deliveries],
        )
        statements.insert_fast(
            DELIVERIES,
            [
                (key, keys[n // 2 % recipients], n % 2, 0, at, None, None, None)
                for key, n in deliveries
            ],
        )
        statements.insert_fast(
            QUEUE,
            [
                (key, keys[n // 2 % recipients], at + n, 0, None, None, None, None)
                for key, n in deliveries
                if n % 2 == 0
            ],
        )

    queued.database.run(work)


def count(queued: Queued) -> None:
    """Tell the server to look how many rows there are."""
    kind, prefix = queued.database.executor.kind, queued.database.wording.prefix
    with queued.database.executor.reading() as connection:
        for table in (*LARGE, "recipients"):
            word = "ANALYZE TABLE" if kind == "mariadb" else "ANALYZE"
            connection.execute(f"{word} {prefix}{table}")


def what_a_worker_runs(queued: Queued):
    """The statements of claims and of how they end, with their parameters."""
    ran: list[tuple[str, object]] = []
    transaction = queued.database.executor.transaction

    @contextlib.contextmanager
    def recorded(*, durable: bool = True):
        with transaction(durable=durable) as connection:
            connection.ran = ran
            yield connection

    queued.database.executor.transaction = recorded
    now, run, queue = later(3600), queued.database.run, queued.queue
    for token in ("one", "two", "three"):
        claims = queued.claim(now, limit=50, token=token, busy={"sub_x": 99}, per_recipient=99)
        assert len(claims) == 50
    run(lambda s: queue.renew(s, claims, micros(later(4000))))
    run(lambda s: queue.release(s, claims))
    named = [claim.message.id for claim in claims]
    claims = queued.claim(now, limit=50, message_ids=named, busy={"sub_x": 100})
    assert len(claims) == 50
    states = (DeliveryState.PENDING, DeliveryState.DELIVERED)
    queued.record(*(ended(c, states[n % 2], due_at=later(9999)) for n, c in enumerate(claims)))
    queued.record(*(ended(c, at=later(1)) for c in claims))
    waiting = run(lambda s: queue.waiting(s, "sub_0", micros(now), 5))
    run(lambda s: queue.cancel(s, waiting, micros(now), "why"))
    run(queue.next_due)
    run(lambda s: queued.recipients.served(s, {recipient_key("sub_0"): False}, micros(now)))
    found = [each for each in ran if not each[0].startswith("INSERT")]
    assert len(found) > 40
    return found


def explained(queued: Queued, statement: str, params) -> list[tuple[str, str]]:
    """What a database would do: words for it, and the table they are about."""
    kind = queued.database.executor.kind
    with queued.database.executor.reading() as connection:
        if kind == "sqlite":
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", params)
            return [(row[3], "") for row in rows]
        if kind == "mariadb":
            rows = connection.execute(f"EXPLAIN {statement}", params)
            return [(f"{row[3]} {row[9]}", str(row[2])) for row in rows]
        ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", params)
        return [(n["Node Type"], n.get("Relation Name", "")) for n in _nodes(plan[0]["Plan"])]


def _nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def scans(queued: Queued, statement: str, params) -> list[tuple[str, str]]:
    """What of that would read a large table from end to end."""
    names = {f"{queued.database.wording.prefix}{table}" for table in LARGE}
    short = {"q", "d", "t"} if queued.database.executor.kind == "mariadb" else set()
    ends = ("Seq Scan", "ALL ", "index ")
    return [
        (word, table)
        for word, table in explained(queued, statement, params)
        if (table in names | short and word.startswith(ends))
        or (word.startswith("SCAN") and word.split()[1] in {*names, "q", "d", "t"})
    ]


@pytest.mark.parametrize("recipients", [1, 200])
def test_what_a_worker_does_is_found_by_indexes_however_much_there_is(database, recipients):
    queued = Queued(database)
    fill(queued, recipients)
    count(queued)
    for statement, params in what_a_worker_runs(queued):
        assert scans(queued, statement, params) == [], statement


@pytest.mark.parametrize("recipients", [1, 200])
@pytest.mark.parametrize("kind", thin.KINDS)
def test_a_sudden_backlog_is_read_in_its_order_and_not_sorted(kind, recipients, tmp_path):
    with thin.database(kind, tmp_path) as database:
        queued = Queued(database)
        fill(queued, recipients)
        looks = [
            (statement, params)
            for statement, params in what_a_worker_runs(queued)
            if "LIMIT" in statement and "ORDER BY" in statement
        ]
        assert len(looks) > 7
        for statement, params in looks:
            words = " ".join(word for word, _ in explained(queued, statement, params))
            for sorting in ("Sort", "filesort", "TEMP B-TREE"):
                assert sorting not in words, statement
