"""The dispatcher `inline`: everything at once, and nobody waits for long."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from thorn_core import Settings, Thorn
from thorn_core.api import ApiRequest, Resource
from thorn_core.testing import LocalRecipient

# More than go to one recipient at once otherwise.
MANY = 20


def settings(**changes):
    return Settings(
        **{"allowed_networks": ["127.0.0.0/8"], "allowed_ports": range(1, 65536), **changes}
    )


async def answer(writer, status=200):
    writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
    await writer.drain()
    return True


class Together:
    """Answers nobody before so many requests are there."""

    def __init__(self, number):
        self._left = number
        self._all = asyncio.Event()

    async def __call__(self, request, writer):
        self._left -= 1
        if self._left == 0:
            self._all.set()
        await self._all.wait()
        return await answer(writer)


class Held:
    """Answers nobody before it is released."""

    def __init__(self):
        self.released = threading.Event()

    async def __call__(self, request, writer):
        await asyncio.to_thread(self.released.wait, 10)
        return await answer(writer)


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def held(recipient):
    held = Held()
    recipient.behave(held)
    yield held
    held.released.set()


def test_all_recipients_of_a_send_are_attempted_at_once(recipient):
    recipient.behave(Together(MANY))
    with Thorn(settings=settings(event_timeout=5)) as app:
        for number in range(MANY):
            app.subscribe("*", f"{recipient.url}{number}")
        assert app.send("a.b")


def test_a_recipient_that_did_not_answer_before_holds_nothing_up(recipient):
    recipient.hang(times=1)
    with Thorn(settings=settings(event_timeout=5, retry=False)) as app:
        app.subscribe("*", recipient.url)
        assert not app.send("a.b", timeout=0.05)
        for number in range(MANY - 1):
            app.subscribe("*", f"{recipient.url}{number}")
        recipient.behave(Together(MANY))
        assert app.send("a.b")


def test_deliveries_of_a_replay_are_attempted_at_once(recipient):
    recipient.answer(status=500)
    with Thorn(settings=settings(event_timeout=5, retry=False)) as app:
        app.subscribe("*", recipient.url)
        for _ in range(MANY):
            app.send("a.b")
        recipient.behave(Together(MANY))
        assert app.replay(event="a.b") == MANY
        assert {delivery.state for delivery in app.deliveries()} == {"delivered"}


def test_a_send_waits_inline_timeout_at_most_and_the_rest_goes_on(recipient, held):
    with Thorn(settings=settings(inline_timeout=0.02)) as app:
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        assert not receipt.finished
        held.released.set()
        assert receipt.wait(10)


def test_an_asynchronous_send_waits_as_long(recipient, held):
    async def main(app):
        receipt = await app.asend("a.b")
        assert not receipt.finished
        held.released.set()
        async with asyncio.timeout(10):
            return await receipt

    with Thorn(settings=settings(inline_timeout=0.02)) as app:
        app.subscribe("*", recipient.url)
        assert asyncio.run(main(app))


def test_a_send_that_is_cancelled_stops_no_delivery(recipient, held):
    async def main(app):
        sending = asyncio.create_task(app.asend("a.b"))
        await recipient.await_for(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    with Thorn(settings=settings()) as app:
        app.subscribe("*", recipient.url)
        asyncio.run(main(app))
        (delivery,) = app.deliveries()
        held.released.set()
        assert app.wait_until(lambda: app.delivery(delivery.id).state == "delivered", 10)


def test_a_replay_waits_inline_timeout_in_all(recipient, held, monkeypatch):
    monkeypatch.setattr("thorn_core.paging.PAGE", 2)
    with Thorn(settings=settings(inline_timeout=0.02, retry=False)) as app:
        app.subscribe("*", recipient.url)
        recipient.answer(status=500)
        receipts = [app.send("a.b") for _ in range(6)]
        assert all(receipt.wait(10) is False for receipt in receipts)
        recipient.behave(held)
        assert app.replay(event="a.b") == 6
        held.released.set()
        assert all(receipt.wait(10) for receipt in receipts)


def test_recovering_by_rest_waits_inline_timeout_at_most(recipient, held):
    with Thorn(settings=settings(inline_timeout=0.02, retry=False)) as app:
        subscription = app.subscribe("*", recipient.url, owner="ada")
        recipient.answer(status=500)
        receipt = app.send("a.b", sender="ada")
        assert receipt.wait(10) is False
        recipient.behave(held)
        response = Resource(app).handle(
            ApiRequest(
                method="POST",
                path=f"/hooks/{subscription.id}/recover/",
                owner="ada",
                headers={"content-type": "application/json"},
                body=json.dumps({"since": "2020-01-01T00:00:00Z"}).encode(),
            )
        )
        assert response.status < 300
        assert not receipt.finished
        held.released.set()
        assert receipt.wait(10)


def test_closing_waits_for_attempts_under_way(recipient):
    with Thorn(settings=settings(inline_timeout=0)) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b")
    assert [delivery.state for delivery in app.deliveries()] == ["delivered"]


def test_what_fails_at_once_stays_in_the_store_and_does_not_reach_the_sender(recipient, caplog):
    with Thorn(settings=settings()) as app:
        app.subscribe("*", recipient.url)
        claim = app.store.claim
        app.store.claim = lambda **_: 1 / 0
        receipt = app.send("a.b")
        assert "1 messages could not be delivered immediately" in caplog.text
        app.store.claim = claim
        assert app.worker().drain() == 1
        assert receipt
