"""Units of work that stores and adapters offer, and the default app that is made when needed."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import attrs
import pytest

from thorn_core import (
    ConfigurationError,
    Event,
    MemoryStore,
    ModelEvent,
    Settings,
    Thorn,
    buffer_events,
    get_app,
    make_default_app_by,
    signals,
    webhook_model,
)


@attrs.define(eq=False)
class Unit:
    """A transaction that is open until it is told otherwise."""

    handle: object = None
    waiting: list = attrs.field(factory=list)
    open: bool = True

    def on_commit(self, callback):
        self.waiting.append(callback)

    async def run(self, function):
        return function()

    def commit(self):
        for callback in self.waiting:
            callback()


class SeeingStore(MemoryStore):
    """A store that sees by itself that a transaction is open."""

    def __init__(self):
        super().__init__(history=10)
        self.unit = Unit()
        self.asked = 0

    def unit_of_work(self):
        self.asked += 1
        return self.unit


@pytest.fixture
def app():
    with Thorn(store=SeeingStore(), dispatcher="outbox") as app:
        yield app


def test_a_send_belongs_to_the_transaction_that_the_store_sees(app):
    app.send("a.b")
    assert not app.messages_to_route()
    app.store.unit.commit()
    assert len(app.messages_to_route()) == 1
    assert app.store.asked == 1


def test_a_transaction_that_is_named_comes_before_it(app):
    mine = Unit()
    app.send("a.b", within=mine)
    app.store.unit.commit()
    assert not app.messages_to_route()
    mine.commit()
    assert len(app.messages_to_route()) == 1


def test_only_what_is_in_no_transaction_waits_in_a_buffer(app):
    mine = Unit()
    with buffer_events() as buffer:
        app.send("a.b")
        app.send("a.b", within=mine)
        assert len(buffer) == 0
        assert app.store.unit.waiting
        assert mine.waiting
        app.store.unit.open = False
        app.send("a.b")
        assert len(buffer) == 1


@pytest.mark.parametrize("honors", [True, False])
def test_a_model_event_that_honors_no_transaction_goes_at_once(app, honors):
    @webhook_model
    class Article:
        class webhooks:
            on_create = ModelEvent("a.created", signal_honors_transaction=honors, app=app)

    signals.model_created.send(Article, instance=Article(), within=Unit())
    signals.model_created.send(Article, instance=Article())
    assert len(app.messages_to_route()) == (0 if honors else 2)


@contextmanager
def made_by(make):
    make_default_app_by(make)
    try:
        yield
    finally:
        make_default_app_by(None)


def test_the_default_app_is_made_once_by_whatever_thread_needs_it_first():
    made = []

    def make():
        made.append(Thorn(dispatcher="outbox"))
        return made[-1]

    with made_by(make):
        threads = [threading.Thread(target=get_app) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [get_app()] == made
        assert Event("a.b").app is made[0]
        made[0].close()
        assert get_app() is made[1]
        made[1].close()
    with pytest.raises(ConfigurationError, match="there is no app yet"):
        get_app()


def test_what_fails_in_making_the_default_app_is_raised_each_time():
    with made_by(lambda: Thorn(settings=Settings(retri=1))):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="did you mean retry"):
                get_app()


def test_an_app_that_is_there_is_the_default_one():
    with made_by(lambda: pytest.fail("there is one")), Thorn(dispatcher="outbox") as app:
        assert get_app() is app
