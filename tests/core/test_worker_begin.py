"""A worker begins the requests of some messages, and lets them go on."""

from __future__ import annotations

import pytest

from thorn_core import Event, Settings, Thorn
from thorn_core.testing import LocalRecipient

WAIT = 20
# Longer than a test may take.
NEVER = 3600.0


@pytest.fixture(params=["memory", "sqlite"])
def make(request, tmp_path):
    """Makes an app that leaves its messages to a worker."""
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'thorn.db'}"
    apps = []

    def make(**changes):
        local = {"allowed_networks": ["127.0.0.0/8"], "allowed_ports": range(1, 65536)}
        settings = Settings(
            **{**local, "event_timeout": 300, "lease": 600, "grace_period": 0, **changes}
        )
        apps.append(Thorn(store=store, dispatcher="outbox", settings=settings))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def hanging():
    with LocalRecipient() as recipient:
        recipient.hang()
        yield recipient


def begin(app, ids, seconds=NEVER):
    return app.submit(app.engine.abegin(ids, seconds)).result(WAIT)


def send(app, number):
    event = Event("order.paid", app=app)
    return [event.send({"number": n}).message.id for n in range(number)]


def test_it_returns_while_requests_are_under_way(make, hanging):
    app = make()
    app.subscribe("order.*", hanging.url)
    assert begin(app, send(app, 1))
    hanging.wait_for(1, WAIT)
    assert app.wait_until(lambda: app.stats().deliveries["in_flight"] == 1, WAIT)


def test_all_of_a_recipient_that_answers_is_begun(make, recipient):
    app = make(recipient_concurrency=2, chunksize=10)
    app.subscribe("order.*", recipient.url)
    assert begin(app, send(app, 200))
    recipient.wait_for(200, WAIT)
    assert app.wait_until(lambda: app.stats().deliveries["delivered"] == 200, WAIT)


def test_what_waits_for_a_lane_gets_one_though_nothing_ends_and_nothing_comes(
    make, recipient, hanging
):
    app = make(concurrency=4, chunksize=10)
    app.subscribe("order.*", hanging.url)
    app.subscribe("order.*", recipient.url)
    assert begin(app, send(app, 4))
    recipient.wait_for(4, WAIT)
    hanging.wait_for(4, WAIT)


@pytest.mark.parametrize("method", ["abegin", "adrain"])
def test_a_store_is_not_asked_for_more_than_there_is(make, recipient, monkeypatch, method):
    app = make()
    app.subscribe("order.*", recipient.url)
    ids = send(app, 10)
    asked = []
    claim = app.store.claim
    monkeypatch.setattr(app.store, "claim", lambda **given: asked.append(given) or claim(**given))
    more = (NEVER,) if method == "abegin" else ()
    app.submit(getattr(app.engine, method)([*ids, *ids], *more)).result(WAIT)
    recipient.wait_for(10, WAIT)
    # With a database, all deliveries are attempted directly.
    expected = [] if app.store.blocking else [[*ids, *ids]]
    assert [given["message_ids"] for given in asked] == expected


def test_one_that_hangs_holds_up_nobody(make, recipient, hanging):
    app = make(recipient_concurrency=2, concurrency=10)
    app.subscribe("order.*", hanging.url)
    app.subscribe("order.*", recipient.url)
    ids = send(app, 100)
    assert begin(app, ids[:50])
    assert begin(app, ids[50:])
    recipient.wait_for(100, WAIT)
    assert app.stats().deliveries["pending"] >= 90


def test_what_there_is_no_room_for_in_time_is_left(make, recipient):
    app = make(concurrency=1, recipient_concurrency=1, chunksize=1)
    recipient.answer(delay=0.5)
    app.subscribe("order.*", recipient.url)
    ids = send(app, 50)
    assert not begin(app, ids, 0.1)
    assert app.stats().deliveries["delivered"] < 50


def test_other_messages_are_left_alone(make, recipient):
    app = make()
    app.subscribe("order.*", recipient.url)
    first, second = send(app, 2)
    assert begin(app, [first])
    recipient.wait_for(1, WAIT)
    assert recipient.received[0].headers["webhook-id"] == first
    assert not app.store.routed(second)


def test_nothing_due_is_nothing_to_do(make):
    app = make()
    assert begin(app, send(app, 3))
    assert begin(app, ["msg_that_isnt_there"])
    assert begin(app, [])


def test_a_worker_that_is_stopped_begins_nothing(make, recipient):
    app = make()
    app.subscribe("order.*", recipient.url)
    ids = send(app, 1)
    begin(app, [])
    app.engine.stop()
    assert not begin(app, ids)
