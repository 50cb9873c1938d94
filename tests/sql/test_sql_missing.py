"""Messages that a subscription has missed."""

from __future__ import annotations

from parts import NOW, Parts, later, message, subscription

from thorn_core.stores.sql.missing import missing
from thorn_core.values import OPERATOR, Message

ONE = subscription(1)
OWNED = subscription(2, owner="ada")


def missed(store: Parts, to, since=NOW, until=None, limit=100) -> list[Message]:
    found: list[Message] = []
    after = None
    for _ in range(20):
        some, after = store.read(lambda s, after=after: missing(s, to, since, until, after, limit))
        assert len(some) <= limit
        found += some
        if after is None:
            return found
    raise AssertionError("it never ends")


def test_routed_messages_without_a_delivery_are_found(store):
    every = [
        message(1),
        message(2, 1, event="user.created"),
        message(3, 2, only=OWNED.id),
        message(4, 3, sender="ada"),
        message(5, 4, sender="bob"),
        message(6, 5, sender=OPERATOR),
        message(7, 6, sender="ada"),
        message(8, 7),
    ]
    for each in every[:6]:
        store.deliver(each, subscription(9))
    store.publish(every[6])
    store.deliver(every[7], ONE, OWNED)

    def numbers(to, **asked) -> list[int]:
        return [every.index(each) + 1 for each in missed(store, to, **asked)]

    assert numbers(ONE) == [1, 4, 5, 6]
    assert numbers(OWNED) == [1, 3, 4]
    for limit in (1, 2, 3):
        assert numbers(ONE, limit=limit) == [1, 4, 5, 6]
        assert numbers(OWNED, limit=limit) == [1, 3, 4]
    assert numbers(ONE, since=later(3), until=later(5)) == [4, 5]
    assert numbers(OWNED, since=later(1)) == [3, 4]
    assert store.read(lambda s: missing(s, ONE, NOW, None, "msg_none", 9)) == ([], None)
