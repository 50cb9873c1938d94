"""The worker: routes, claims, delivers, records; over real HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from thorn_core import (
    ConfigurationError,
    DeliveryState,
    Event,
    MemoryStore,
    Response,
    RetryPolicy,
    Settings,
    Thorn,
    ThornError,
    TransportError,
    signals,
)
from thorn_core.recipients import ensure_port
from thorn_core.testing import LocalRecipient
from thorn_core.worker.lane import Share

LOCAL = {"allowed_networks": ["127.0.0.0/8"], "allowed_ports": range(1, 65536)}
WAIT = 10


def settings(**changes):
    return Settings(**{**LOCAL, **changes})


class Clock:
    """A clock that stands until it is put forward."""

    def __init__(self):
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def app(clock):
    with Thorn(dispatcher="outbox", settings=settings(), clock=clock) as app:
        yield app


def test_a_drained_outbox_is_delivered_to_every_subscription(app, recipient):
    for _ in range(3):
        app.subscribe("article.*", recipient.url)
    app.subscribe("user.*", recipient.url)
    receipts = [app.send("article.created", {"n": n}) for n in range(4)]
    assert not any(receipts)
    assert app.worker().drain() == 12
    assert all(receipts)
    assert len(recipient.received) == 12
    assert {len(receipt.deliveries) for receipt in receipts} == {3}


def test_an_attempt_is_recorded_with_what_came_back(app, recipient):
    recipient.answer(status=201, headers={"X-Answer": "yes"}, body=b"thanks")
    app.subscribe("*", recipient.url)
    receipt = app.send("a.b")
    app.worker().drain()
    (delivery,) = receipt.deliveries
    (attempt,) = app.attempts(delivery.id)
    assert (attempt.number, attempt.status, attempt.body) == (1, 201, b"thanks")
    assert attempt.headers["x-answer"] == "yes"
    assert attempt.ok
    assert attempt.duration > 0
    assert (delivery.state, delivery.attempt_count) == (DeliveryState.DELIVERED, 1)
    assert app.delivery(delivery.id) == delivery


def test_a_failure_is_tried_again_when_it_is_due(app, recipient, clock):
    recipient.answer(status=500, times=1)
    app.subscribe("*", recipient.url)
    receipt = app.send("a.b")
    worker = app.worker()
    assert worker.drain() == 1
    (delivery,) = receipt.deliveries
    assert delivery.state is DeliveryState.PENDING
    assert timedelta(seconds=4) <= delivery.due_at - clock() <= timedelta(seconds=6)
    assert worker.drain() == 0
    clock.forward(7)
    assert worker.drain() == 1
    assert receipt
    first, second = recipient.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) == int(first.headers["webhook-timestamp"]) + 7


def test_attempts_used_up_is_failed_and_can_be_replayed(clock, recipient):
    once = settings(retry=False)
    with Thorn(dispatcher="outbox", settings=once, clock=clock) as app:
        recipient.answer(status=500, times=1)
        subscription = app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        worker = app.worker()
        worker.drain()
        assert [d.state for d in receipt.deliveries] == [DeliveryState.FAILED]
        assert receipt.finished
        assert not receipt
        assert not receipt.wait(timeout=WAIT)
        assert app.replay(subscription_id=subscription.id) == 1
        assert worker.drain() == 1
        assert receipt
        assert app.replay(subscription_id=subscription.id) == 0
        assert app.replay(receipt.deliveries[0].id) == 1
        assert app.replay(message_id="msg_none") == 0
        with pytest.raises(ConfigurationError, match="replay needs a filter"):
            app.replay()


def test_gone_disables_the_subscription_and_tells_its_owner(app, recipient):
    disabled = []

    def receiver(sender, *, subscription):
        disabled.append(subscription)

    with LocalRecipient() as gone:
        gone.answer(status=410)
        lost = app.subscribe("article.*", gone.url, owner="42")
        app.subscribe("thorn.*", recipient.url, owner="42")
        app.subscribe("thorn.*", recipient.url, owner="43")
        signals.subscription_disabled.connect(receiver)
        receipts = [app.send("article.created") for _ in range(2)]
        app.worker().drain()
        app.worker().drain()
        signals.subscription_disabled.disconnect(receiver)
    assert [r.deliveries[0].state for r in receipts] == [DeliveryState.CANCELLED] * 2
    assert not app.subscription(lost.id).enabled
    assert "410" in app.subscription(lost.id).disabled_reason
    assert [s.id for s in disabled] == [lost.id]
    (told,) = recipient.received
    assert told.headers["hook-event"] == "thorn.subscription.disabled"
    assert told.json["data"]["id"] == lost.id


def test_what_is_pending_for_a_removed_or_disabled_subscription_is_cancelled(app, recipient, clock):
    recipient.answer(status=500)
    removed = app.subscribe("a.*", recipient.url)
    disabled = app.subscribe("b.*", recipient.url)
    receipts = [app.send("a.b"), app.send("b.c")]
    worker = app.worker()
    worker.drain()
    app.unsubscribe(removed.id)
    app.update_subscription(disabled.id, enabled=False, disabled_reason="holiday")
    clock.forward(10)
    assert worker.drain() == 1
    reasons = [r.deliveries[0].reason for r in receipts]
    assert reasons == ["the subscription was removed", "the subscription is disabled: holiday"]
    assert len(recipient.received) == 2


def test_retry_after_pauses_the_subscription_and_no_other(app, recipient, clock):
    recipient.answer(status=429, headers={"Retry-After": "60"}, times=1)
    app.subscribe("a.*", recipient.url)
    app.subscribe("z.*", recipient.url)
    worker = app.worker()
    app.send("a.b")
    worker.drain()
    app.send("a.c")
    app.send("z.c")
    clock.forward(30)
    assert worker.drain() == 1
    clock.forward(31)
    assert worker.drain() == 2
    assert len(recipient.received) == 4


def test_a_refused_recipient_is_cancelled_without_a_request(clock):
    with LocalRecipient() as recipient, Thorn(dispatcher="outbox", clock=clock) as app:
        static = Event("a.b", app=app, subscribers=recipient.url)
        receipt = static.send()
        app.worker().drain()
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.attempt_count) == (DeliveryState.CANCELLED, 0)
        assert recipient.connections == 0


def test_an_events_validators_take_the_place_of_the_settings(app, recipient):
    strict = Event("a.b", app=app, recipient_validators=[ensure_port(1)])
    app.subscribe("*", recipient.url)
    receipt = strict.send()
    app.worker().drain()
    assert receipt.deliveries[0].state is DeliveryState.CANCELLED
    assert "port" in receipt.deliveries[0].reason


def test_an_event_can_do_without_keepalive(app, recipient):
    single = Event("a.b", app=app, allow_keepalive=False)
    app.subscribe("*", recipient.url)
    worker = app.worker()
    for _ in range(2):
        single.send()
        worker.drain()
    assert recipient.connections == 2


def test_a_recipient_that_hangs_costs_no_more_than_its_timeout(clock, recipient):
    with Thorn(dispatcher="outbox", settings=settings(event_timeout=0.1), clock=clock) as app:
        recipient.hang(times=1)
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        app.worker().drain()
        (attempt,) = app.attempts(receipt.deliveries[0].id)
        assert attempt.timed_out
        assert 0.09 <= attempt.duration < 5
        assert attempt.error == "no response in time"


def test_a_refused_connection_is_a_failed_attempt(app):
    with LocalRecipient() as gone:
        app.subscribe("*", gone.url)
    receipt = app.send("a.b")
    app.worker().drain()
    (attempt,) = app.attempts(receipt.deliveries[0].id)
    assert attempt.status is None
    assert attempt.error
    assert not attempt.timed_out
    assert receipt.deliveries[0].state is DeliveryState.PENDING


def test_redirects_are_not_followed(app, recipient):
    with LocalRecipient() as elsewhere:
        recipient.answer(status=302, headers={"Location": elsewhere.url})
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        app.worker().drain()
        assert receipt.deliveries[0].reason == "status 302"
        assert elsewhere.connections == 0


def test_redirects_are_followed_where_that_is_allowed_and_each_hop_is_validated(clock, recipient):
    follow = settings(allow_redirects=True)
    with (
        LocalRecipient() as elsewhere,
        Thorn(dispatcher="outbox", settings=follow, clock=clock) as app,
    ):
        app.subscribe("*", recipient.url)
        recipient.answer(status=307, headers={"Location": elsewhere.url}, times=1)
        good = app.send("a.b", {"n": 1})
        app.worker().drain()
        assert good
        assert elsewhere.received[0].json["data"] == {"n": 1}
        recipient.answer(status=307, headers={"Location": "ftp://e.com/"}, times=1)
        bad = app.send("a.b")
        app.worker().drain()
        assert bad.deliveries[0].state is not DeliveryState.DELIVERED
        recipient.answer(status=307, headers={"Location": recipient.url})
        endless = app.send("a.b")
        app.worker().drain()
        assert endless.deliveries[0].reason == "status 307"
        assert len(recipient.received) == 1 + 1 + 6


def test_the_rate_limit_of_a_subscription_is_kept(app, recipient, clock):
    app.subscribe("*", recipient.url, rate_limit=0.5)
    for _ in range(3):
        app.send("a.b")
    worker = app.worker()
    arrived = []
    for _ in range(5):
        worker.drain()
        arrived.append(len(recipient.received))
        clock.forward(1)
    assert arrived == [1, 1, 2, 2, 3]
    assert all(d.attempt_count == 1 for d in app.deliveries())


def test_outcomes_are_signalled(app, recipient, clock):
    seen = []

    def told(name):
        def receiver(sender, *, delivery, attempt):
            seen.append((name, delivery.state.value, attempt and attempt.status))

        return receiver

    receivers = {
        signal: told(signal.name)
        for signal in (
            signals.attempt_made,
            signals.delivery_delivered,
            signals.delivery_failed,
            signals.delivery_cancelled,
        )
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver)

    def failing(sender, **kwargs):
        raise RuntimeError

    signals.attempt_made.connect(failing)
    app.subscribe("*", recipient.url)
    app.send("a.b")
    app.worker().drain()
    recipient.answer(status=500)
    Event("a.c", app=app, retry=False).send()
    app.worker().drain()
    recipient.answer(status=410)
    app.send("a.d")
    app.worker().drain()
    for signal, receiver in receivers.items():
        signal.disconnect(receiver)
    signals.attempt_made.disconnect(failing)
    assert seen == [
        ("attempt-made", "in_flight", 200),
        ("delivery-delivered", "delivered", 200),
        ("attempt-made", "in_flight", 500),
        ("delivery-failed", "failed", 500),
        ("attempt-made", "in_flight", 410),
        ("delivery-cancelled", "cancelled", 410),
    ]


class Slow:
    """A transport that answers when it is told to, and counts what is under way."""

    def __init__(self):
        self.release = asyncio.Event()
        self.under_way, self.most, self.by_url = 0, 0, {}
        self.closed = False

    async def send(self, request):
        self.under_way += 1
        self.by_url[request.url] = self.by_url.get(request.url, 0) + 1
        self.most = max(self.most, self.under_way)
        try:
            await self.release.wait()
        finally:
            self.under_way -= 1
        return Response(status=200)

    async def close(self):
        self.closed = True


async def until(condition):
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0)


def slow_app(**changes):
    made = []

    def make():
        made.append(Slow())
        return made[-1]

    app = Thorn(dispatcher="outbox", settings=Settings(**changes), transport=make)
    return app, made


def test_concurrency_is_capped_in_all_and_per_recipient():
    async def main():
        app, made = slow_app(concurrency=10, recipient_concurrency=4)
        for name in "abcd":
            app.subscribe("*", f"https://{name}.example.com/")
        for _ in range(8):
            app.send("x.y")
        worker = app.worker()
        task = asyncio.create_task(worker.adrain())
        await until(lambda: made and made[0].under_way == 10)
        assert max(made[0].by_url.values()) <= 4
        assert len(made[0].by_url) == 4
        made[0].release.set()
        assert await task == 32
        assert made[0].most == 10
        await worker.aclose()
        assert made[0].closed
        app.close()

    asyncio.run(main())


def test_requests_that_hang_hold_up_nobody_else(monkeypatch):
    monkeypatch.setattr("thorn_core.worker.load.SLOW_SECONDS", 0.05)

    class Hanging(Slow):
        async def send(self, request):
            if "hang" in request.url:
                return await super().send(request)
            return Response(status=200)

    async def main():
        made = []

        def make():
            made.append(Hanging())
            return made[-1]

        app = Thorn(dispatcher="outbox", settings=Settings(concurrency=4), transport=make)
        app.subscribe("*", "https://hang.example.com/")
        for _ in range(4):
            app.send("x.y")
        worker = app.worker()
        running = asyncio.create_task(worker.arun())
        await until(lambda: made and made[0].under_way == 4)
        app.subscribe("*", "https://good.example.com/")
        receipt = app.send("x.z")
        await until(
            lambda: [d.state for d in receipt.deliveries].count(DeliveryState.DELIVERED) == 1
        )
        assert made[0].under_way == 5
        made[0].release.set()
        await until(lambda: bool(receipt))
        worker.stop()
        await running
        app.close()

    asyncio.run(main())


def test_a_recipient_that_does_not_answer_gets_one_request_at_a_time():
    class Deaf(Slow):
        deaf = True

        async def send(self, request):
            if self.deaf:
                raise TransportError("connection refused")
            return await super().send(request)

    async def main():
        made = []

        def make():
            made.append(Deaf())
            return made[-1]

        clock = Clock()
        app = Thorn(
            dispatcher="outbox",
            settings=Settings(recipient_concurrency=8, retry_policy=RetryPolicy((1,) * 20, 0)),
            transport=make,
            clock=clock,
        )
        app.subscribe("*", "https://deaf.example.com/")
        for _ in range(8):
            app.send("x.y")
        worker = app.worker()
        assert await worker.adrain() == 8
        made[0].deaf = False
        clock.forward(2)
        task = asyncio.create_task(worker.adrain())
        await until(lambda: made[0].under_way == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert made[0].under_way == 1
        made[0].release.set()
        assert await task == 8
        await worker.aclose()
        app.close()

    asyncio.run(main())


def test_stopping_lets_requests_under_way_end_and_returns_the_rest():
    async def main():
        app, made = slow_app(concurrency=2)
        app.subscribe("*", "https://e.example.com/")
        receipts = [app.send("x.y") for _ in range(5)]
        worker = app.worker()
        running = asyncio.create_task(worker.arun())
        await until(lambda: made and made[0].under_way == 2)
        worker.stop()
        await asyncio.sleep(0)
        assert not running.done()
        made[0].release.set()
        await running
        states = sorted(r.deliveries[0].state.value for r in receipts)
        assert states == ["delivered", "delivered", "pending", "pending", "pending"]
        assert all(d.attempt_count == (d.state == "delivered") for d in app.deliveries())
        app.close()

    asyncio.run(main())


def test_after_the_grace_period_requests_under_way_go_back_to_pending():
    async def main():
        app, made = slow_app(grace_period=0.01)
        app.subscribe("*", "https://e.example.com/")
        receipt = app.send("x.y")
        worker = app.worker()
        running = asyncio.create_task(worker.arun())
        await until(lambda: made and made[0].under_way == 1)
        worker.stop()
        await running
        assert made[0].under_way == 0
        assert [(d.state.value, d.attempt_count) for d in receipt.deliveries] == [("pending", 0)]
        app.close()

    asyncio.run(main())


def test_leases_are_renewed_while_a_request_is_under_way():
    class Renewing(MemoryStore):
        def __init__(self):
            super().__init__()
            self.renewed = threading.Event()

        def renew(self, claims, *, until):
            super().renew(claims, until=until)
            self.renewed.set()

    async def main():
        made = []

        def make():
            made.append(Slow())
            return made[-1]

        store = Renewing()
        app = Thorn(
            store=store,
            dispatcher="outbox",
            settings=Settings(event_timeout=0.9, lease=1),
            transport=make,
        )
        app.subscribe("*", "https://e.example.com/")
        app.send("x.y")
        worker = app.worker()
        running = asyncio.create_task(worker.adrain())
        assert await asyncio.to_thread(store.renewed.wait, WAIT)
        made[0].release.set()
        assert await running == 1
        await worker.aclose()
        app.close()

    asyncio.run(main())


class Leasing(MemoryStore):
    """A store that tells until when it leases, and may let the time pass meanwhile."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.leases = []
        self.sleep = timedelta()

    def claim(self, *, now, lease, **arguments):
        claims = super().claim(now=now, lease=lease, **arguments)
        self.leases += [now + lease] * len(claims)
        if claims:
            self.clock.now += self.sleep
        return claims


def test_what_is_leased_no_more_is_not_requested(recipient, clock, caplog):
    """The machine may have slept; another worker has it by now, and would send it too."""
    store = Leasing(clock)
    app = Thorn(store=store, dispatcher="outbox", settings=settings(lease=60), clock=clock)
    app.subscribe("*", recipient.url)
    receipt = app.send("a.b")
    store.sleep = timedelta(seconds=61)
    app.worker().drain()
    assert len(recipient.received) == 0
    assert "expired before its request" in caplog.text
    store.sleep = timedelta(seconds=59)
    assert app.worker().drain() == 1
    assert receipt
    app.close()


def test_a_long_drain_leases_from_its_present_time_on(recipient, clock):
    store = Leasing(clock)
    most = settings(lease=60, concurrency=1, recipient_concurrency=1)
    app = Thorn(store=store, dispatcher="outbox", settings=most, clock=clock)
    app.subscribe("*", recipient.url)
    begun = clock.now
    for number in range(5):
        app.send("a.b", number)
    store.sleep = timedelta(seconds=40)
    assert app.worker().drain() == 5
    since = [(until - begun).total_seconds() for until in store.leases]
    assert since == [60, 100, 140, 180, 220]
    app.close()


class Late(MemoryStore):
    """A store in a thread that finds nothing to claim, and says so once all that was has ended."""

    blocking = True
    worker = None

    def claim(self, **arguments):
        claims = super().claim(**arguments)
        deadline = time.monotonic() + WAIT
        while not claims and self.worker.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return claims


def test_a_drain_goes_on_if_all_ends_while_it_asks_for_more(recipient):
    store = Late()
    most = settings(concurrency=1, recipient_concurrency=1, chunksize=4)
    with Thorn(store=store, dispatcher="outbox", settings=most) as app:
        app.subscribe("*", recipient.url)
        for number in range(20):
            app.send("a.b", number)
        store.worker = app.worker()
        assert store.worker.drain() == 20


class Flaky(MemoryStore):
    """A store that fails when it is told to, in a thread like a database's."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.failures = {}

    def _maybe(self, name):
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise OSError(f"{name}: the database is away")

    def claim_messages(self, **arguments):
        self._maybe("claim_messages")
        return super().claim_messages(**arguments)

    def record(self, completions, **arguments):
        self._maybe("record")
        return super().record(completions, **arguments)

    def release(self, claims):
        self._maybe("release")
        super().release(claims)

    def renew(self, claims, *, until):
        self._maybe("renew")
        super().renew(claims, until=until)


def test_a_store_that_fails_is_tried_again(recipient, caplog):
    store = Flaky()
    with Thorn(store=store, dispatcher="background", settings=settings(poll_interval=0.01)) as app:
        app.subscribe("*", recipient.url)
        store.failures.update(claim_messages=2, record=1)
        receipt = app.send("a.b")
        assert receipt.wait(timeout=WAIT)
        assert len(recipient.received) == 1
    assert "the store can't work: claim_messages: the database is away" in caplog.text
    assert "the store works again" in caplog.text
    assert "the store can't record" in caplog.text


def test_a_store_that_fails_at_the_stop_leaves_it_to_the_leases(caplog):
    async def main():
        made = []

        def make():
            made.append(Slow())
            return made[-1]

        store = Flaky()
        app = Thorn(
            store=store,
            dispatcher="outbox",
            settings=Settings(grace_period=0.01),
            transport=make,
        )
        app.subscribe("*", "https://e.example.com/")
        await app.asend("x.y")
        worker = app.worker()
        running = asyncio.create_task(worker.arun())
        await until(lambda: made and made[0].under_way == 1)
        store.failures["release"] = 1
        worker.stop()
        await running
        app.close()

    asyncio.run(main())
    assert "wait for their leases to expire" in caplog.text


def test_a_large_fan_out_is_routed_in_chunks(recipient):
    with Thorn(
        dispatcher="outbox", settings=settings(chunksize=1, recipient_concurrency=50)
    ) as app:
        app.subscribe(["a.*", "*"], recipient.url)
        for _ in range(2100):
            app.subscribe("a.*", "https://127.0.0.1:1/")
        receipt = app.send("a.b")
        store = app.store
        (message,) = store.claim_messages(now=app.clock(), lease=timedelta(), limit=10)
        asyncio.run(route_only(app, message))
        assert len(receipt.deliveries) == 2101


async def route_only(app, message):
    async with app.worker() as worker:
        share = Share(0, 0, 0, {})
        await worker._bound()._router.route([message], app.clock(), share)


def test_two_workers_share_the_work(recipient):
    with Thorn(dispatcher="outbox", settings=settings()) as app:
        app.subscribe("*", recipient.url)
        for n in range(60):
            app.send("a.b", {"n": n})

        async def adrain():
            async with app.worker() as worker:
                await worker.adrain()

        def drain():
            asyncio.run(adrain())

        threads = [threading.Thread(target=drain) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        app.worker().drain()
        assert sorted(r.json["data"]["n"] for r in recipient.received) == list(range(60))


def test_a_worker_belongs_to_one_loop(app):
    worker = app.worker()
    app.submit(worker.adrain()).result(WAIT)
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(worker.adrain())


def test_a_blocking_call_on_the_engines_own_thread_is_refused(app, recipient, caplog):
    app.subscribe("*", recipient.url)
    errors = []

    def callback(attempt):
        try:
            app.worker().drain()
        except ThornError as error:
            errors.append(str(error))

    app.send("a.b", on_success=callback)
    app.worker().drain()
    assert "would deadlock" in errors[0]


def test_sending_from_the_engines_own_thread_does_not_wait(recipient):
    with Thorn(settings=settings()) as app:
        app.subscribe("first.*", recipient.url)
        app.subscribe("second.*", recipient.url)
        sent = []
        app.send("first.a", on_success=lambda attempt: sent.append(app.send("second.b")))
        assert sent[0].wait(timeout=WAIT)
        assert [r.headers["hook-event"] for r in recipient.received] == ["first.a", "second.b"]


def test_a_form_is_sent_as_a_form(app, recipient):
    app.subscribe("*", recipient.url, content_type="application/x-www-form-urlencoded")
    app.send("a.b", {"title": "Hé"})
    app.worker().drain()
    (request,) = recipient.received
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert b"data%5Btitle%5D=H%C3%A9" in request.body


def test_stats_tell_what_there_is(app, recipient):
    app.subscribe("*", recipient.url)
    app.send("a.b")
    app.worker().drain()
    app.send("a.c")
    stats = app.stats()
    assert (stats.subscriptions, stats.messages, stats.unrouted) == (1, 2, 1)
    assert stats.deliveries[DeliveryState.DELIVERED] == 1
    assert stats.attempts == 1
    assert set(stats.latency) == {50, 95, 99}


def test_deliveries_can_be_asked_for(app, recipient):
    subscription = app.subscribe("*", recipient.url)
    app.send("a.b")
    app.send("a.c")
    app.worker().drain()
    assert len(list(app.deliveries(event="a.*", state="delivered"))) == 2
    assert len(list(app.deliveries(event="a.b", subscription_id=subscription.id))) == 1
    assert list(app.deliveries(until=app.clock() - timedelta(days=1))) == []
    with pytest.raises(ConfigurationError, match="states are pending, in_flight"):
        app.deliveries(state="lost")
    with pytest.raises(ConfigurationError, match="no time zone"):
        app.deliveries(since=datetime(2026, 1, 1))


def test_secrets_rotate(app, clock):
    subscription = app.subscribe("*", "https://e.example.com/")
    rotated = app.rotate_secret(subscription.id)
    assert rotated.secret != subscription.secret
    assert rotated.signing_secrets(clock()) == (rotated.secret, subscription.secret)
    clock.forward(86_399)
    assert len(rotated.signing_secrets(clock())) == 2
    clock.forward(1)
    assert rotated.signing_secrets(clock()) == (rotated.secret,)
    again = app.rotate_secret(subscription.id, "whsec_" + "A" * 32)
    assert again.secrets == ("whsec_" + "A" * 32, rotated.secret)
    assert attrs.evolve(again) == app.subscription(subscription.id)


def test_a_defect_costs_one_delivery_its_lease_and_no_more(recipient, clock, monkeypatch, caplog):
    with Thorn(dispatcher="outbox", settings=settings(), clock=clock) as app:
        app.subscribe("*", recipient.url)
        receipts = [app.send("a.b") for _ in range(3)]
        judged = []

        def broken(*args, **kwargs):
            judged.append(1)
            if len(judged) == 1:
                raise RuntimeError("defect")
            return original(*args, **kwargs)

        from thorn_core.worker import attempts

        original = attempts.judge
        monkeypatch.setattr(attempts, "judge", broken)
        app.worker().drain()
        assert sum(map(bool, receipts)) == 2
        assert "could not be attempted" in caplog.text
        clock.forward(61)
        app.worker().drain()
        assert all(receipts)


def test_the_owner_is_told_of_a_disabled_subscription_without_any_worker(recipient):
    with LocalRecipient() as gone, Thorn(settings=settings()) as app:
        gone.answer(status=410)
        app.subscribe("article.*", gone.url, owner="42")
        app.subscribe("thorn.*", recipient.url, owner="42")
        app.send("article.created")
        (told,) = recipient.wait_for(1, timeout=WAIT)
        assert told.json["event"] == "thorn.subscription.disabled"


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://localhost:1/",
        "//192.168.0.1/",
    ],
)
def test_a_redirect_into_the_internal_network_is_refused(clock, recipient, location):
    guarded = Settings(
        allowed_networks=["127.0.0.1"],
        allowed_ports=[1, port_of(recipient)],
        allow_redirects=True,
        signatures=("standard-webhooks",),
    )
    if "localhost" in location:
        guarded = guarded.evolve(allowed_ports=[port_of(recipient)])
    with Thorn(dispatcher="outbox", settings=guarded, clock=clock) as app:
        recipient.answer(status=307, headers={"Location": location})
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        app.worker().drain()
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.attempt_count) == (DeliveryState.PENDING, 1)
        assert delivery.reason.startswith("status 307: The recipient")
        assert len(recipient.received) == 1


def port_of(recipient):
    return int(recipient.url.rstrip("/").rpartition(":")[2])


@pytest.mark.parametrize(
    "fault", ["hang", "trickle", "endless_headers", "huge", "reset", "garbage"]
)
def test_a_recipient_that_misbehaves_costs_its_timeout_and_8_kib_and_nobody_else(fault):
    with (
        LocalRecipient() as bad,
        LocalRecipient() as good,
        Thorn(dispatcher="background", settings=settings(event_timeout=0.5)) as app,
    ):
        getattr(bad, fault)()
        app.subscribe("*", bad.url)
        app.subscribe("*", good.url)
        receipts = [app.send("a.b", {"n": n}) for n in range(5)]
        good.wait_for(5, timeout=WAIT)

        def tried():
            return all(d.attempt_count for r in receipts for d in r.deliveries) and all(
                len(r.deliveries) == 2 for r in receipts
            )

        assert app.wait_until(tried, WAIT)
        for receipt in receipts:
            for delivery in receipt.deliveries:
                (attempt,) = app.attempts(delivery.id)
                assert attempt.duration < WAIT
                assert len(attempt.body) <= 8192
