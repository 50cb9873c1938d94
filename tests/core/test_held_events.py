"""Messages that are held back until what they tell of is certain."""

from __future__ import annotations

import pytest

from thorn_core import Event, HeldEvents, Thorn, buffer_events


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox") as app:
        yield app


@pytest.fixture
def happened(app):
    return Event("thing.happened", app=app)


def numbers(app):
    return [message.payload for message in app.messages_to_route()]


def test_what_is_held_is_sent_once_it_is_released(app, happened):
    held = HeldEvents()
    with held:
        happened.send(1)
    happened.send(2)
    with held:
        happened.send(3)
    assert len(held) == 2
    assert numbers(app) == [2]
    assert held.release() == 2
    assert numbers(app) == [1, 2, 3]
    assert held.release() == 0


def test_what_is_never_released_is_never_sent(app, happened):
    with HeldEvents():
        happened.send(1)
    assert numbers(app) == []


def test_an_open_buffer_keeps_nothing_back(app, happened):
    held = HeldEvents()
    with buffer_events() as buffer:
        with held:
            happened.send(1)
        assert len(buffer) == 0
        held.release()
        assert len(buffer) == 0
        assert numbers(app) == [1]


def test_a_buffer_inside_does_not_let_go(app, happened):
    held = HeldEvents()
    with held, buffer_events() as buffer:
        happened.send(1)
        assert buffer.flush() == 0
    assert numbers(app) == []
    assert held.release() == 1
    assert numbers(app) == [1]


def test_held_events_may_be_held_by_others(app, happened):
    inner, outer = HeldEvents(), HeldEvents()
    with inner:
        happened.send(1)
    with outer:
        inner.release()
    assert numbers(app) == []
    outer.release()
    assert numbers(app) == [1]


def test_more_may_be_held_than_a_buffer_takes(app, happened, monkeypatch):
    monkeypatch.setattr("thorn_core.buffering.BUFFER_LIMIT", 2)
    held = HeldEvents()
    with held:
        for number in range(3):
            happened.send(number)
    assert numbers(app) == []
    held.discard()
    assert held.release() == 0


def test_what_cannot_be_published_stays(app, happened, monkeypatch):
    held = HeldEvents()
    with held:
        happened.send(1)
    with monkeypatch.context() as context:
        context.setattr(app.store, "publish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            held.release()
    assert held.release() == 1
    assert numbers(app) == [1]
