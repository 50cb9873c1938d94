"""Recipients that can't be had: what becomes of the others, and of them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from thorn_core import Event, Settings, Subscription, Thorn, hookimpl, signals
from thorn_core.testing import LocalRecipient

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


class Clock:
    """The time, moved by hand."""

    def __init__(self):
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now

    def forward(self, **more):
        self.now += timedelta(**more)


@contextmanager
def working(store, recipient, subscribers=None, plugins=(), **settings):
    """An app on its own time, with a stored subscription; and the time."""
    clock = Clock()
    targets = {} if subscribers is None else {"*": subscribers}
    with Thorn(
        store=store,
        dispatcher="outbox",
        settings=LOCAL.evolve(subscribers=targets, **settings),
        plugins=plugins,
        clock=clock,
        default=False,
    ) as app:
        app.subscribe("*", recipient.url + "stored")
        yield app, clock


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/thorn.db"


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


def drain(app, clock, times=3):
    for _ in range(times):
        app.worker().drain()
        clock.forward(minutes=20)


def broken(message):
    raise KeyError("tenant in db.internal")


def half_a_list(message):
    yield "https://north east.example.com/"
    raise OSError("db.internal")


async def forgotten_await(message):
    return "https://example.com/"


BAD = {
    "an impossible URL": (lambda m: "https://north east.example.com/hook", "north east"),
    "a user name": (lambda m: "https://me:pa55@example.com/", "holds a user name"),
    "no absolute URL": (lambda m: "/hook", "isn't absolute"),
    "a bad port": (lambda m: "http://e.com:99999/", "has the port 99999"),
    "an empty text": (lambda m: "", "isn't absolute"),
    "raises": (broken, "an internal error"),
    "bytes": (lambda m: b"https://example.com/", "an internal error"),
    "a number": (lambda m: 7, "an internal error"),
    "a mapping without URL": (lambda m: {"secret": "pa55"}, "has no 'url'"),
    "a misspelt option": (lambda m: {"url": "https://e.com/", "ownr": "1"}, "ownr"),
    "a bad secret": (lambda m: {"url": "https://e.com/", "secret": "pa55"}, "secret"),
    "an id that is too long": (
        lambda m: attrs.evolve(subscription_of("https://e.com/"), id="sub_" + "x" * 500),
        "an internal error",
    ),
    "a URL that is no text": (
        lambda m: attrs.evolve(subscription_of("https://e.com/"), url=7),
        "an internal error",
    ),
}


def subscription_of(url):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Subscription(id="sub_given", events=("*",), url=url, created_at=at, updated_at=at)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_static_recipient_is_one_cancelled_delivery(store, recipient, fault):
    bad, words = BAD[fault]
    with working(store, recipient, [bad, recipient.url + "static"]) as (app, clock):
        receipt = app.send("a.b", {"n": 1})
        drain(app, clock)
        assert sorted(r.path for r in recipient.received) == ["/static", "/stored"]
        assert app.stats().unrouted == 0
        (cancelled,) = [d for d in receipt.deliveries if d.state != "delivered"]
        assert (cancelled.state, cancelled.attempt_count) == ("cancelled", 0)
        assert words in cancelled.reason
        assert "db.internal" not in cancelled.reason
        assert "pa55" not in cancelled.reason
        assert cancelled.finished_at == clock.now - timedelta(minutes=60)


@pytest.mark.parametrize(
    "bad", [{"url": "/hook", "owner": "ada"}, {"url": "https://e.com/", "owner": "ada", "x": 1}]
)
def test_an_owners_bad_recipient_is_cancelled_for_that_owner_only(store, recipient, bad):
    with working(store, recipient, lambda message: bad) as (app, clock):
        receipts = [app.send("a.b", sender=sender) for sender in ("ada", "bob")]
        drain(app, clock)
        states = [sorted(d.state for d in receipt.deliveries) for receipt in receipts]
        assert states == [["cancelled", "delivered"], ["delivered"]]


def test_a_generator_that_fails_halfway_costs_the_rest_of_its_own(store, recipient):
    with working(store, recipient, [half_a_list, recipient.url + "static"]) as (app, clock):
        receipt = app.send("a.b", 1)
        drain(app, clock)
        assert sorted(r.path for r in recipient.received) == ["/static", "/stored"]
        reasons = sorted(d.reason or "" for d in receipt.deliveries)
        assert reasons[:2] == ["", ""]
        assert "north east" in reasons[2]
        assert reasons[3] == "an internal error"


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_coroutine_is_no_subscriber(store, recipient):
    with working(store, recipient, lambda message: forgotten_await(message)) as (app, clock):
        receipt = app.send("a.b", 1)
        drain(app, clock)
        assert sorted(d.state for d in receipt.deliveries) == ["cancelled", "delivered"]


def test_an_events_own_bad_recipient_costs_nothing_either(store, recipient):
    with working(store, recipient) as (app, clock):
        event = Event("order.paid", subscribers=[broken, recipient.url + "own"], app=app)
        event.send(1)
        drain(app, clock)
        assert sorted(r.path for r in recipient.received) == ["/own", "/stored"]


def test_a_cancelled_delivery_comes_to_be_once_and_stays_away_once_purged(store, recipient):
    with working(store, recipient, broken) as (app, clock):
        app.send("a.b", 1)
        drain(app, clock)
        clock.forward(days=30)
        assert app.purge(until=clock() - timedelta(days=1)) == 2
        drain(app, clock)
        assert list(app.deliveries()) == []
        assert len(recipient.received) == 1


def test_a_cancelled_delivery_is_logged_and_signalled_once(store, recipient, caplog):
    told = []

    def receiver(sender, *, delivery, attempt):
        told.append((delivery.reason, attempt))

    with working(store, recipient, broken) as (app, clock):
        with signals.delivery_cancelled.connected_to(receiver, sender=app):
            receipt = app.send("a.b", 1)
            drain(app, clock)
        (cancelled,) = [d for d in receipt.deliveries if d.state == "cancelled"]
    assert told == [("an internal error", None)]
    records = [r for r in caplog.records if r.name == "thorn_core.worker"]
    assert [(r.levelname, getattr(r, "delivery_id", None)) for r in records] == [
        ("ERROR", None),
        ("WARNING", cancelled.id),
    ]
    assert "db.internal" in caplog.text


def test_a_replay_of_a_cancelled_delivery_is_cancelled_again(store, recipient):
    with working(store, recipient, lambda m: "https://north east.example.com/") as (app, clock):
        receipt = app.send("a.b", 1)
        drain(app, clock)
        (cancelled,) = [d for d in receipt.deliveries if d.state == "cancelled"]
        assert app.replay(cancelled.id) == 1
        drain(app, clock)
        assert app.delivery(cancelled.id).state == "cancelled"


def test_of_a_sender_only_what_is_its_own_is_recorded(recipient):
    targets = [{"url": "https://north east.example.com/", "owner": owner} for owner in ("1", "2")]
    with working("memory://", recipient, lambda m: targets) as (app, clock):
        receipt = app.send("a.b", 1, sender="1")
        drain(app, clock)
        assert sorted(d.state for d in receipt.deliveries) == ["cancelled", "delivered"]


# -- hooks


class Hooks:
    """Names a recipient and vetoes; fails in one of these while it is broken."""

    def __init__(self, broken, url):
        self.broken, self.url, self.asked = broken, url, 0

    @hookimpl
    def thorn_subscriptions(self, message):
        self.asked += 1
        if self.broken == "subscriptions":
            raise RuntimeError("db.internal")
        return [attrs.evolve(subscription_of(self.url), id="sub_of_a_plugin")]

    @hookimpl
    def thorn_accepts(self, message, subscription):
        if self.broken == "accepts" and subscription.url.endswith("/plugin"):
            raise RuntimeError("db.internal")
        if self.broken == "accepts stored" and subscription.url.endswith("/stored"):
            raise RuntimeError("db.internal")


@pytest.mark.parametrize(
    ("hook", "first"),
    [
        ("subscriptions", ["/other", "/stored"]),
        ("accepts", ["/other", "/stored"]),
        ("accepts stored", ["/other", "/plugin"]),
    ],
)
def test_a_hook_that_fails_is_asked_again_and_holds_up_nobody(store, recipient, hook, first):
    hooks = Hooks(hook, recipient.url + "plugin")
    other = recipient.url + "other"
    with working(store, recipient, other, plugins=[hooks]) as (app, clock):
        receipt = app.send("a.b", 1)
        drain(app, clock)
        assert sorted(r.path for r in recipient.received) == first
        assert not receipt
        hooks.broken = None
        drain(app, clock)
        assert receipt
        assert sorted(r.path for r in recipient.received) == ["/other", "/plugin", "/stored"]


def test_one_failing_plugin_does_not_cost_the_recipients_of_another(store, recipient):
    one = Hooks("subscriptions", recipient.url)
    two = Hooks(None, recipient.url + "plugin")
    with working(store, recipient, plugins=[one, two]) as (app, _):
        app.send("a.b", 1)
        app.worker().drain()
        assert sorted(r.path for r in recipient.received) == ["/plugin", "/stored"]


@pytest.mark.parametrize("hook", ["subscriptions", "accepts", "accepts stored"])
def test_a_hook_that_never_answers_is_given_up_in_the_end(store, recipient, hook, caplog):
    hooks = Hooks(hook, recipient.url + "plugin")
    with working(store, recipient, plugins=[hooks]) as (app, clock):
        receipt = app.send("a.b", 1)
        for _ in range(80):
            app.worker().drain()
            clock.forward(hours=1)
        assert app.stats().unrouted == 0
        assert hooks.asked == 77
        left = [(d.state, d.reason) for d in receipt.deliveries if d.state != "delivered"]
        assert left == ([] if hook == "subscriptions" else [("cancelled", "an internal error")])
        assert "are given up" in caplog.text


def test_a_failing_hook_is_no_busy_loop(recipient):
    hooks = Hooks("subscriptions", recipient.url + "plugin")
    with working("memory://", recipient, plugins=[hooks]) as (app, _):
        app.send("a.b", 1)
        worker = app.worker()
        future = app.submit(worker.arun())
        recipient.wait_for(1, timeout=10)
        app.send("a.b", 2)
        recipient.wait_for(2, timeout=10)
        assert hooks.asked == 2
        worker.stop()
        future.result()


def test_a_page_that_could_not_be_asked_about_is_asked_about_again(recipient):
    hooks = Hooks("accepts stored", recipient.url + "plugin")
    with working("memory://", recipient, plugins=[hooks], recipient_concurrency=1) as (app, clock):
        for _ in range(1100):
            app.subscribe("a.b", "https://127.0.0.1:1/")
        receipt = app.send("a.b", 1)
        app.submit(app.engine.abegin([receipt.message.id], 0.0)).result()
        assert not app.store.routed(receipt.message.id)
        hooks.broken = None
        clock.forward(minutes=2)
        app.submit(app.engine.abegin([receipt.message.id], 0.0)).result()
        assert app.store.routed(receipt.message.id)
        assert len(receipt.deliveries) == 1102


# -- declarations


@contextmanager
def two_processes(store, recipient):
    """What a sender's process declares, a worker's doesn't know."""
    clock = Clock()
    with (
        Thorn(
            store=store, dispatcher="outbox", settings=LOCAL, clock=clock, default=False
        ) as sender,
        Thorn(
            store=store if isinstance(store, str) and "sqlite" in store else sender.store,
            dispatcher="outbox", settings=LOCAL, clock=clock, default=False,
        ) as worker,
    ):  # fmt: skip
        sender.subscribe("*", recipient.url + "stored")
        yield sender, worker, clock


OPTIONS = [
    {"subscribers": "https://example.com/own"},
    {"recipient_validators": [("ensure_port", 443)]},
    {"allow_keepalive": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_a_message_waits_for_a_worker_that_knows_what_was_declared(
    store, recipient, options, caplog
):
    with two_processes(store, recipient) as (sender, worker, clock):
        event = Event("order.strict", app=sender, **options)
        receipt = event.send(1)
        sender.send("order.other", 1)
        for _ in range(3):
            worker.worker().drain()
            clock.forward(minutes=20)
        assert [r.json["event"] for r in recipient.received] == ["order.other"]
        assert receipt.deliveries == ()
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert {r.event for r in warnings} == {"order.strict"}
        assert "setting imports" in caplog.text
        sender.worker().drain()
        assert receipt.deliveries


def test_a_worker_that_ends_leaves_what_waits_to_others_at_once(store, recipient):
    with two_processes(store, recipient) as (sender, worker, _):
        receipt = Event("order.strict", app=sender, allow_keepalive=False).send(1)
        worker.worker().drain()
        sender.worker().drain()
        assert receipt


def test_one_worker_warns_once_of_an_event(recipient, caplog):
    with two_processes("memory://", recipient) as (sender, worker, clock):
        event = Event("order.strict", app=sender, allow_keepalive=False)
        for number in range(5):
            event.send(number)
        one = worker.worker()
        worker.submit(one.adrain()).result()
        clock.forward(minutes=5)
        worker.submit(one.adrain()).result()
        worker.submit(one.aclose()).result()
        assert caplog.text.count("order.strict wait") == 1


def test_a_retry_waits_for_a_worker_that_knows_the_event_as_well(recipient, caplog):
    with two_processes("memory://", recipient) as (sender, worker, clock):
        event = Event("order.strict", app=sender, recipient_validators=LOCAL.validators)
        recipient.answer(status=500, times=1)
        receipt = event.send(1)
        sender.worker().drain()
        clock.forward(minutes=1)
        assert worker.worker().drain() == 1
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.attempt_count) == ("pending", 1)
        assert delivery.reason == "waiting for a worker that knows its event"
        clock.forward(minutes=2)
        sender.worker().drain()
        assert receipt


def test_an_event_that_was_never_declared_waits_for_nobody(store, recipient):
    with two_processes(store, recipient) as (sender, worker, _):
        receipt = sender.send("order.ad_hoc", 1)
        worker.worker().drain()
        assert receipt
