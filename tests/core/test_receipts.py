"""Receipts: what became of a message, asked or awaited; and what was sent twice."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from thorn_core import (
    ConfigurationError,
    HeldEvents,
    MemoryStore,
    Message,
    Settings,
    Thorn,
    ThornError,
    buffer_events,
    signals,
)
from thorn_core.testing import LocalRecipient, capture
from thorn_core.values import OPERATOR

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


class Unit:
    """A transaction that commits when it is told to."""

    handle = None
    open = True

    def __init__(self):
        self._waiting = []

    def on_commit(self, callback):
        self._waiting.append(callback)

    async def run(self, function):
        return function()

    def commit(self):
        for callback in self._waiting:
            callback()


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox") as app:
        yield app


# -- waiting


def test_a_receipt_can_be_awaited_on_the_loop_of_the_worker():
    async def main(app):
        worker = app.worker()
        working = asyncio.create_task(worker.arun())
        receipt = await app.asend("a.b")
        try:
            async with asyncio.timeout(10):
                return await receipt
        finally:
            worker.stop()
            await working

    with LocalRecipient() as recipient, Thorn(dispatcher="outbox", settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        assert asyncio.run(main(app)) is True


def test_a_receipt_that_is_awaited_says_that_a_delivery_failed():
    async def main(app):
        return await (await app.asend("a.b"))

    settings = LOCAL.evolve(retry=False)
    with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        recipient.answer(status=500)
        app.subscribe("*", recipient.url)
        assert asyncio.run(main(app)) is False


def test_many_may_await_one_receipt_and_give_up():
    async def main(app):
        receipt = await app.asend("a.b")
        given_up = asyncio.create_task(asyncio.wait_for(receipt, 0.01))
        waiting = [asyncio.create_task(receipt._wait()) for _ in range(3)]
        with pytest.raises(TimeoutError):
            await given_up
        async with app.worker() as worker:
            await worker.adrain()
        return await asyncio.gather(*waiting)

    with Thorn(dispatcher="outbox") as app:
        assert asyncio.run(main(app)) == [True] * 3


def test_waiting_in_an_event_loop_names_the_way_out(app):
    async def main():
        receipt = await app.asend("a.b")
        with pytest.raises(ConfigurationError, match="use: await receipt"):
            receipt.wait(0)
        with pytest.raises(ConfigurationError, match="block the event loop"):
            app.wait_until(lambda: True, 0)

    asyncio.run(main())


def test_waiting_on_the_engines_thread_names_the_way_out():
    seen = []

    def receiver(app, *, attempt, delivery):
        try:
            sent[0].wait(1)
        except ConfigurationError as error:
            seen.append(str(error))

    sent = []
    with LocalRecipient() as recipient, Thorn(dispatcher="outbox", settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        sent.append(app.send("a.b"))
        with signals.attempt_made.connected_to(receiver, sender=app):
            app.worker().drain()
    assert ["use: await receipt" in text for text in seen] == [True]


def test_what_is_not_sent_yet_is_no_success_and_can_not_be_waited_for(app):
    unit = Unit()
    with buffer_events():
        buffered = app.send("a.b")
        within = app.send("a.b", within=unit)
        for receipt in (buffered, within):
            assert not receipt
            assert not receipt.finished
            with pytest.raises(ConfigurationError, match="has not been sent"):
                receipt.wait(1)
    unit.commit()
    app.worker().drain()
    assert buffered.wait(1)
    assert within.wait(1)


# -- sent twice


def test_a_second_send_says_that_it_is_one_and_shows_the_first(app):
    first = app.send("a.b", {"n": 1}, idempotency_key="7")
    again = app.send("a.b", {"n": 2}, idempotency_key="7")
    plain = app.send("a.b", {"n": 3})
    assert [r.duplicate for r in (first, again, plain)] == [False, True, False]
    assert again.message == first.message
    assert sorted(m.payload["n"] for m in app.messages_to_route()) == [1, 3]


def test_the_same_key_of_two_senders_sends_both(app):
    senders = [None, OPERATOR, "ada", "bob", "None", "null", 7]
    receipts = [
        app.send("a.b", {"of": str(sender)}, sender=sender, idempotency_key="1")
        for sender in senders
    ]
    assert not any(r.duplicate for r in receipts)
    assert len({r.message.id for r in receipts}) == len(senders)
    assert app.send("a.b", sender="7", idempotency_key="1").duplicate


def test_a_duplicate_is_neither_signalled_nor_dispatched():
    seen, dispatched = [], []

    class Dispatcher:
        publishes = True

        def dispatch(self, messages):
            dispatched.extend(message.payload for message in messages)

        def close(self):
            pass

    def receiver(app, *, message):
        seen.append(message.payload)

    with (
        Thorn() as app,
        app.dispatching_by(Dispatcher()),
        signals.message_sent.connected_to(receiver, sender=app),
    ):
        for number in range(2):
            app.send("a.b", number, idempotency_key="7")
    assert seen == dispatched == [0]


def test_whether_a_buffered_message_is_a_duplicate_is_known_at_the_flush(app):
    with buffer_events():
        receipts = [app.send("a.b", n, idempotency_key="7") for n in range(3)]
        other = app.send("a.b", 3, sender="ada", idempotency_key="7")
        assert [r.duplicate for r in receipts] == [None] * 3
    assert [r.duplicate for r in (*receipts, other)] == [False, True, True, False]
    assert {r.message.payload for r in receipts} == {0}


def test_whether_a_message_is_a_duplicate_is_known_at_the_commit(app):
    unit = Unit()
    first = app.send("a.b", 1, idempotency_key="7", within=unit)
    between = app.send("a.b", 2, idempotency_key="7")
    assert (first.duplicate, between.duplicate) == (None, False)
    unit.commit()
    assert first.duplicate is True
    assert first.message.payload == 2


def test_of_sends_at_once_one_is_the_first(app):
    start, receipts = threading.Barrier(4), []

    def send(number):
        start.wait()
        receipts.append(app.send("a.b", number, idempotency_key="7"))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.duplicate for r in receipts) == [False, True, True, True]
    assert len({r.message.payload for r in receipts}) == 1


def test_held_and_unpublished_messages_know_their_duplicates():
    with Thorn(dispatcher="disabled") as app:
        receipts = [app.send("a.b", idempotency_key="7") for _ in range(2)]
        assert [r.duplicate for r in receipts] == [False, False]
    with Thorn(dispatcher="outbox") as app:
        held = HeldEvents()
        with held:
            receipts = [app.send("a.b", idempotency_key="7") for _ in range(2)]
        held.release()
        assert [r.duplicate for r in receipts] == [False, True]


# -- captured


def test_capturing_finds_duplicates_as_the_store_does(app):
    with capture(app) as sent:
        receipts = [
            app.send("a.b", n, sender=sender, idempotency_key="7")
            for n, sender in enumerate(["ada", "ada", "bob"])
        ]
        assert [m.payload for m in sent] == [0, 2]
        assert [r.duplicate for r in receipts] == [False, True, False]
        assert [r.message.payload for r in receipts] == [0, 0, 2]
    assert not app.send("a.b", sender="ada", idempotency_key="7").duplicate


def test_capturing_waits_for_the_commit_and_the_end_of_a_buffer(app):
    unit = Unit()
    with capture(app) as sent:
        within = app.send("a.within", within=unit, idempotency_key="7")
        with buffer_events():
            app.send("a.buffered")
            assert sent == []
        assert [m.event for m in sent] == ["a.buffered"]
        unit.commit()
        assert [m.event for m in sent] == ["a.buffered", "a.within"]
        assert within.duplicate is False


MESSAGE = Message(
    id="msg_" + "a" * 32, event="a.b", data=b"null", at=datetime(2026, 3, 1, 12, tzinfo=UTC)
)


@pytest.mark.parametrize(
    "send",
    [
        lambda app: app.send_message(MESSAGE, dispatcher="nope"),
        lambda app: app.send("a b"),
        lambda app: app.send("a.b", "x" * 300_000),
        lambda app: app.send("a.b", object()),
        lambda app: app.send("a.b", within=object()),
        lambda app: app.send("a.b", timeuot=3),
    ],
)
def test_capturing_refuses_what_production_refuses(send):
    with Thorn(store=MemoryStore()) as app:
        with pytest.raises(ThornError) as raised:
            send(app)
        with capture(app), pytest.raises(type(raised.value)) as captured:
            send(app)
        assert str(captured.value).split(" at 0x")[0] == str(raised.value).split(" at 0x")[0]
