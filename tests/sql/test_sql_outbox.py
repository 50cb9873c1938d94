"""The outbox of the SQL store, on every database."""

from __future__ import annotations

import hashlib
import threading

import attrs
import parts
import pytest
from parts import NOW, later, message, subscription

from thorn_core import keys
from thorn_core.delivery import make_cancelled_delivery
from thorn_core.stores.sql import messages as lately
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.messages import Messages
from thorn_core.stores.sql.outbox import Outbox
from thorn_core.stores.sql.rows import micros
from thorn_core.stores.sql.wording import MYSQL
from thorn_core.values import DeliveryState, Routing

WAITING = "SELECT message_id FROM $outbox"


class Outgoing:
    """An outbox with what it needs."""

    def __init__(self, database: Database) -> None:
        self.parts = parts.Parts(database)
        self.database, self.messages = database, Messages()
        self.outbox = Outbox(
            self.messages, self.parts.queue, self.parts.recipients, self.parts.subscriptions
        )

    def publish(self, *messages):
        return self.database.run(lambda s: self.outbox.publish(s, messages))

    def claim(self, now=NOW, seconds=60, limit=100, ids=None):
        at = micros(now)
        claimed = self.database.run(
            lambda s: self.outbox.claim(
                s, now=at, until=at + seconds * 1_000_000, limit=limit, ids=ids
            )
        )
        return [each.id for each in claimed]

    def postpone(self, ids, until):
        self.database.run(lambda s: self.outbox.postpone(s, ids, micros(until)))

    def route(self, of, *deliveries, complete=True):
        routing = Routing(message=of, deliveries=deliveries, complete=complete)
        self.database.run(lambda s: self.outbox.route(s, [routing]))

    def routed(self, message_id):
        return self.database.read(lambda s: self.outbox.routed(s, message_id))

    def next_due(self, now=NOW):
        return self.database.read(lambda s: self.outbox.next_due(s, micros(now)))

    def deliveries(self):
        return self.database.read(lambda s: s.rows("SELECT id, state FROM $deliveries ORDER BY id"))


@pytest.fixture
def outgoing(database) -> Outgoing:
    return Outgoing(database)


def keyed(number, key, **changes):
    return message(number, idempotency=hashlib.sha256(key.encode()).digest(), **changes)


def test_a_message_comes_back_as_it_was(outgoing):
    full = keyed(1, "a", sender="", ref="https://e.com/", context={"a": [1, None]}, timeout=2.5)
    outgoing.publish(full)
    for _ in range(2):
        found = outgoing.database.read(lambda s: outgoing.messages.get(s, full.id))
        assert found == full
    for id_ in (message(2).id, "msg_none"):
        assert outgoing.database.read(lambda s, id_=id_: outgoing.messages.get(s, id_)) is None


def test_of_a_key_the_first_message_is_kept(outgoing):
    one, two, three, other = keyed(1, "a"), keyed(2, "a"), keyed(3, "a"), keyed(4, "b")
    assert outgoing.publish(one, two) == {two.id: one.id}
    assert outgoing.publish(three, other, message(5)) == {three.id: one.id}
    assert outgoing.publish(one) == {}
    assert outgoing.claim() == [one.id, other.id, message(5).id]


def test_of_a_key_that_is_sent_at_once_one_message_is_kept(outgoing):
    start, told = threading.Barrier(4), []

    def publish(number):
        mine = [keyed(number, key) for key in ("x", "y", "z")[:: 1 if number % 2 else -1]]
        mine = [attrs.evolve(m, id=message(10 * number + n).id) for n, m in enumerate(mine)]
        start.wait()
        told.append(len(outgoing.publish(*mine)))

    threads = [threading.Thread(target=publish, args=[number]) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(told) == 9
    assert len(outgoing.claim()) == 3


def test_a_message_that_is_there_is_left_as_it_is(outgoing):
    first = message(1)
    outgoing.publish(first, attrs.evolve(first, data=b"2"))
    outgoing.publish(attrs.evolve(first, data=b"3"))
    assert outgoing.database.read(lambda s: outgoing.messages.get(s, first.id)) == first
    outgoing.route(first)
    outgoing.publish(first)
    # Elsewhere nothing says that the row was there; routing it again makes nothing twice.
    assert outgoing.routed(first.id) or outgoing.database.wording.dialect != "postgresql"


def test_very_much_is_published_at_once(outgoing):
    data = b'"' + bytes(b"x" * 200_000) + b'"'
    many = [message(number, data=data) for number in range(150)]
    outgoing.publish(*many)
    assert outgoing.claim(limit=1000) == [each.id for each in many]


def test_messages_are_leased_the_oldest_first(outgoing):
    many = [message(number, seconds=-number) for number in range(4)]
    outgoing.publish(*many)
    assert outgoing.claim(limit=3) == [many[n].id for n in (3, 2, 1)]
    assert outgoing.claim() == [many[0].id]
    assert outgoing.claim(later(59)) == []
    assert outgoing.claim(later(60)) == [each.id for each in reversed(many)]
    assert outgoing.claim(later(60), limit=0) == []


def test_messages_are_leased_by_id(outgoing):
    many = [message(number) for number in range(3)]
    outgoing.publish(*many)
    ids = ["msg_none", many[2].id, message(9).id]
    assert outgoing.claim(ids=ids) == [many[2].id]
    assert outgoing.claim(ids=ids) == outgoing.claim(ids=[]) == []
    assert outgoing.claim() == [many[0].id, many[1].id]
    assert outgoing.claim(later(61), ids=ids) == [many[2].id]


def test_no_two_lease_the_same(outgoing):
    many = [message(number) for number in range(200)]
    outgoing.publish(*many)
    claimed, start = [], threading.Barrier(4)

    def claim():
        start.wait()
        while some := outgoing.claim(limit=7):
            claimed.extend(some)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed += outgoing.claim()
    assert sorted(claimed) == [each.id for each in many]


def test_a_postponed_message_comes_before_new_ones(outgoing):
    first, second, waiting = (message(number) for number in range(3))
    outgoing.publish(first, second)
    outgoing.claim()
    outgoing.publish(waiting)
    outgoing.postpone([first.id, second.id, waiting.id, "msg_none"], later(500))
    outgoing.postpone([second.id], later(70))
    assert outgoing.next_due() == micros(later(70))
    assert outgoing.claim(later(69)) == [waiting.id]
    assert outgoing.claim(later(499), ids=[first.id]) == []
    outgoing.publish(*(message(number) for number in range(10, 15)))
    assert outgoing.claim(later(500), limit=2) == [first.id, second.id]


def test_the_end_of_a_lease_is_foreseen(outgoing):
    assert outgoing.next_due() is None
    outgoing.publish(message(1), message(2))
    assert outgoing.next_due() is None
    outgoing.claim(limit=1)
    assert outgoing.next_due() == micros(later(60))
    outgoing.route(message(1))
    outgoing.route(message(2))
    assert outgoing.next_due() is None


def test_deliveries_are_made_once(outgoing):
    of, one, two = message(), subscription(1), subscription(2)
    outgoing.publish(of)
    assert not outgoing.routed(of.id)
    first, second = parts.delivery(of, one), parts.delivery(of, two, target=two)
    cancelled = make_cancelled_delivery(of, subscription(3), "no URL", NOW, stored=True)
    outgoing.route(of, first, complete=False)
    assert not outgoing.routed(of.id)
    (claim,) = outgoing.parts.claim()
    outgoing.parts.record(parts.completion(claim))
    for _ in range(2):
        outgoing.route(of, first, second, cancelled)
        assert outgoing.routed(of.id)
    assert sorted(state for _, state in outgoing.deliveries()) == [0, 1, 3]
    (claim,) = outgoing.parts.claim()
    assert (claim.delivery.id, claim.subscription) == (second.id, two)


def test_a_routed_message_may_get_more_deliveries_and_one_that_is_gone_gets_none(outgoing):
    of = message()
    outgoing.publish(of)
    outgoing.route(of)
    outgoing.route(of, parts.delivery(of, subscription(1)))
    gone = message(2)
    outgoing.route(gone, parts.delivery(gone, subscription(1)))
    assert [id_ for id_, _ in outgoing.deliveries()] == [
        keys.delivery_key(keys.delivery_id(of.id, subscription(1).id))
    ]
    assert outgoing.routed(gone.id)
    assert outgoing.routed("msg_none")


def test_workers_that_route_the_same_at_once_make_it_once(outgoing):
    many = [message(number) for number in range(8)]
    subscriptions = [subscription(number) for number in range(20)]
    outgoing.publish(*many)
    start, failures = threading.Barrier(4), []
    others = [Outgoing(outgoing.database) for _ in range(4)]

    def route(number):
        ordered = subscriptions[number:] + subscriptions[:number]
        start.wait()
        try:
            for of in many[::-1] if number % 2 else many:
                others[number].route(of, *(parts.delivery(of, to) for to in ordered))
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=route, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(outgoing.deliveries()) == 160
    claimed = outgoing.parts.claim(limit=1000, per_recipient=1000)
    assert {claim.delivery.state for claim in claimed} == {DeliveryState.IN_FLIGHT}


def test_few_messages_are_remembered(outgoing, monkeypatch):
    monkeypatch.setattr(lately, "REMEMBERED_BYTES", 25)
    many = [message(number, data=b'"1234567"') for number in range(4)]
    outgoing.publish(*many)
    outgoing.claim()
    assert len(outgoing.messages._lately) == 2
    assert outgoing.messages._size == 18


def test_a_send_is_one_round_trip_where_the_database_can(outgoing):
    for number in (1, 2):
        outgoing.publish(message(number))
        with outgoing.database.executor.transaction() as connection:
            statements = parts.Statements(connection, outgoing.database.wording)
            outgoing.outbox.publish(statements, [message(10 + number)])
            many = 1 if outgoing.database.wording.dialect == "postgresql" else 2
            assert len(connection.ran) == many
    assert outgoing.database.wording.dialect in (MYSQL, "postgresql", "sqlite")
    assert len(outgoing.database.read(lambda s: s.rows(WAITING))) == 4
