"""What fails on this side of the wire: logged, tried again, and never held against a recipient."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from thorn_core import PayloadError, SecurityError, Settings, Thorn, hookimpl
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


class Plugin:
    """Fails in one way or another until it is mended."""

    def __init__(self, hook):
        self.broken = True
        self.hook = hook

    def fails(self, hook):
        return self.broken and self.hook == hook


class Preparing(Plugin):
    @hookimpl
    def thorn_prepare_request(self, request, delivery):
        if self.fails("raises"):
            raise KeyError("tenant of db.internal")
        if self.fails("returns nonsense"):
            return {"url": request.url}
        if self.fails("body of text"):
            return attrs.evolve(request, body="text")
        if self.fails("a refused URL"):
            return attrs.evolve(request, url="http://10.1.2.3/gateway")
        return None

    @hookimpl
    def thorn_validate_recipient(self, url):
        if self.fails("validation raises"):
            raise RuntimeError("db.internal is down")

    @hookimpl
    def thorn_codecs(self):
        return {"text/x": self.encode, "text/y": self.encode}

    def encode(self, envelope):
        if self.fails("codec raises"):
            raise ZeroDivisionError("in db.internal")
        if self.fails("codec refuses"):
            raise PayloadError("no 'id' in what db.internal gave")
        if self.fails("codec raises security"):
            raise SecurityError("db.internal")
        return b"x"


class Signing(Plugin):
    @hookimpl
    def thorn_signature_schemes(self):
        return {"broken": self}

    def sign(self, signable, secrets):
        raise OSError("the key store at db.internal is down")


DEFECTS = [
    "raises",
    "returns nonsense",
    "body of text",
    "a refused URL",
    "validation raises",
    "codec raises",
    "codec refuses",
    "codec raises security",
]


@contextmanager
def world(defect, **options):
    """An app with a defect, a recipient, and a clock."""
    clock, plugin = Clock(), Preparing(None)
    with (
        LocalRecipient() as recipient,
        Thorn(
            dispatcher="outbox", settings=LOCAL, clock=clock, plugins=[plugin], default=False,
            **options,
        ) as app,
    ):  # fmt: skip
        subscription = app.subscribe("*", recipient.url, owner="1", content_type="text/x")
        plugin.hook = defect
        yield app, plugin, recipient, clock, subscription


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_repeated_later_and_says_nothing_of_itself_to_the_owner(defect):
    with world(defect) as (app, plugin, recipient, clock, _):
        receipt = app.send("a.b", {"n": 1})
        app.worker().drain()
        (delivery,) = receipt.deliveries
        (attempt,) = app.attempts(delivery.id)
        told = {delivery.reason, attempt.error}
        encoding = {"the payload can't be encoded as text/x"}
        assert told in ({"an internal error"}, encoding)
        assert (delivery.state, delivery.due_at > clock()) == ("pending", True)
        assert recipient.received == ()
        plugin.broken = False
        clock.forward(minutes=1)
        app.worker().drain()
        assert receipt
        assert len(recipient.received) == 1


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_weeks_never_disables_a_recipient(defect):
    with world(defect) as (app, _, _, clock, subscription):
        worker = app.worker()
        for _ in range(14):
            app.send("a.b", 1)
            worker.drain()
            clock.forward(days=1)
        found = app.subscription(subscription.id)
        assert (found.enabled, found.failing_since, found.failures) == (True, None, 0)


def test_a_defect_is_repeated_by_the_default_schedule_and_in_the_end_given_up():
    with world("raises") as (app, _, _, clock, _):
        receipt = app.send("a.b", 1)
        tries = 0
        for _ in range(100):
            tries += app.worker().drain()
            clock.forward(hours=2)
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.reason) == ("failed", "an internal error")
        assert tries == 10


def test_an_event_that_is_not_retried_still_survives_a_defect():
    """No request was made yet."""
    with world("raises") as (app, plugin, recipient, clock, _):
        app.settings = LOCAL.evolve(retry=False)
        receipt = app.send("a.b", 1)
        app.worker().drain()
        plugin.broken = False
        clock.forward(minutes=1)
        app.worker().drain()
        assert receipt
        assert len(recipient.received) == 1


def test_a_signing_that_fails_sends_nothing_unsigned():
    settings = LOCAL.evolve(signatures=("broken",))
    with (
        LocalRecipient() as recipient,
        Thorn(dispatcher="outbox", settings=settings, plugins=[Signing(None)]) as app,
    ):
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b", 1)
        app.worker().drain()
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.reason) == ("pending", "an internal error")
        assert recipient.connections == 0


def test_the_traceback_of_a_defect_is_logged_once_though_many_fail(caplog):
    with world("raises") as (app, *_):
        ids = [app.send("a.b", n).message.id for n in range(5)]
        app.worker().drain()
        defects = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert sorted(r.message_id for r in defects) == sorted(ids)
        assert sum(r.exc_info is not None for r in defects) == 1


def test_a_transport_that_raises_nonsense_is_a_defect_too():
    class Transport:
        async def send(self, request):
            raise LookupError("no such pool in db.internal")

        async def close(self):
            pass

    with world(None, transport=Transport) as (app, _, _, _, subscription):
        receipt = app.send("a.b", 1)
        app.worker().drain()
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.reason) == ("pending", "an internal error")
        assert app.subscription(subscription.id).failing_since is None


def test_a_refusal_of_what_a_name_resolves_to_is_a_failed_attempt():
    class Transport:
        async def send(self, request):
            raise SecurityError("The recipient address 10.0.0.1 is internal.")

        async def close(self):
            pass

    with world(None, transport=Transport) as (app, _, _, _, subscription):
        receipt = app.send("a.b", 1)
        app.worker().drain()
        (delivery,) = receipt.deliveries
        (attempt,) = app.attempts(delivery.id)
        assert (delivery.state, attempt.status) == ("pending", None)
        assert delivery.reason == attempt.error == "The recipient address 10.0.0.1 is internal."
        assert app.subscription(subscription.id).failures == 1


def test_an_url_that_has_come_to_be_refused_cancels_without_a_request():
    class Refusing:
        refuses = False

        @hookimpl
        def thorn_validate_recipient(self, url):
            if self.refuses:
                raise SecurityError("example.com is on the list")

    plugin = Refusing()
    with (
        LocalRecipient() as recipient,
        Thorn(dispatcher="outbox", settings=LOCAL, plugins=[plugin]) as app,
    ):
        subscription = app.subscribe("*", recipient.url)
        plugin.refuses = True
        receipt = app.send("a.b", 1)
        app.worker().drain()
        (delivery,) = receipt.deliveries
        assert (delivery.state, delivery.attempt_count) == ("cancelled", 0)
        assert delivery.reason == "example.com is on the list"
        assert app.subscription(subscription.id).failures == 0
