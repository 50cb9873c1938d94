"""Buffers: messages wait, and go together."""

from __future__ import annotations

import asyncio
import threading

import pytest

from thorn_core import Buffer, BufferNotEmpty, ConfigurationError, Thorn, buffer_events
from thorn_core.buffering import BUFFER_LIMIT, current_buffer


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox") as app:
        yield app


def waiting(app):
    return [message.event for message in app.messages_to_route()]


def test_messages_wait_until_the_block_ends(app):
    with buffer_events() as buffer:
        app.send("a.one")
        app.send("a.two")
        assert len(buffer) == 2
        assert waiting(app) == []
    assert waiting(app) == ["a.one", "a.two"]
    assert current_buffer() is None


def test_flush_publishes_what_waits_in_one_go(app):
    with buffer_events() as buffer:
        app.send("a.one")
        app.send("a.two")
        assert buffer.flush() == 2
        assert waiting(app) == ["a.one", "a.two"]
        assert buffer.flush() == 0


def test_maybe_flush_keeps_to_the_frequency(app):
    with buffer_events(flush_freq=2) as buffer:
        app.send("a.one")
        assert buffer.maybe_flush() == 0
        app.send("a.two")
        assert buffer.maybe_flush() == 2


def test_maybe_flush_keeps_to_the_timeout(app):
    with buffer_events(flush_timeout=3600) as patient:
        app.send("a.one")
        assert patient.maybe_flush() == 0
    with buffer_events(flush_timeout=1e-9) as hasty:
        app.send("a.two")
        assert hasty.maybe_flush() == 1


def test_nested_buffers_flush_with_the_outermost(app):
    with buffer_events():
        app.send("a.outer")
        with buffer_events() as inner:
            app.send("a.inner")
            assert len(inner) == 2
        assert waiting(app) == []
    assert waiting(app) == ["a.outer", "a.inner"]


def test_an_exception_still_sends_what_came_before_it(app):
    with pytest.raises(RuntimeError, match="later"), buffer_events():
        app.send("a.one")
        raise RuntimeError("later")
    assert waiting(app) == ["a.one"]


def test_an_exception_can_discard_what_came_before_it(app):
    with pytest.raises(RuntimeError), buffer_events(discard_on_error=True):
        app.send("a.one")
        raise RuntimeError
    assert waiting(app) == []
    assert current_buffer() is None


def test_a_nested_block_discards_only_its_own(app):
    with buffer_events():
        app.send("a.outer")
        with pytest.raises(RuntimeError), buffer_events(discard_on_error=True):
            app.send("a.inner")
            raise RuntimeError
    assert waiting(app) == ["a.outer"]


def test_a_nested_block_after_a_flush_discards_only_its_own(app):
    with buffer_events() as outer:
        app.send("a.outer")
        with pytest.raises(RuntimeError), buffer_events(discard_on_error=True):
            outer.flush()
            app.send("a.inner")
            raise RuntimeError
    assert waiting(app) == ["a.outer"]


def test_closing_by_hand_refuses_to_lose_messages(app):
    buffer = Buffer().open()
    app.send("a.one")
    with pytest.raises(BufferNotEmpty, match="holds 1 messages"):
        buffer.close()
    assert buffer.discard() == 1
    buffer.close()
    assert current_buffer() is None
    assert waiting(app) == []


def test_a_nested_buffer_closed_by_hand_leaves_its_messages_to_the_outer(app):
    with buffer_events():
        inner = Buffer().open()
        app.send("a.one")
        inner.close()
        assert current_buffer() is not None
    assert waiting(app) == ["a.one"]


@pytest.mark.parametrize("option", ["flush_freq", "flush_timeout"])
def test_limits_must_be_positive(option):
    with pytest.raises(ConfigurationError, match=option), buffer_events(**{option: 0}):
        pytest.fail("not reached")


def test_a_full_buffer_flushes_by_itself():
    published = []
    buffer = Buffer()
    for number in range(BUFFER_LIMIT):
        buffer.add("key", published.append, number)
    assert [len(batch) for batch in published] == [BUFFER_LIMIT]
    assert len(buffer) == 0


def test_messages_are_grouped_in_order():
    published = []
    buffer = Buffer()
    for key, number in [("a", 1), ("a", 2), ("b", 3), ("a", 4)]:
        buffer.add(key, published.append, number)
    buffer.flush()
    assert published == [[1, 2], [3], [4]]


def test_what_can_not_be_published_stays():
    published = []

    def refuse(batch):
        raise RuntimeError("full")

    buffer = Buffer()
    buffer.add("a", published.append, 1)
    buffer.add("b", refuse, 2)
    buffer.add("c", published.append, 3)
    with pytest.raises(RuntimeError, match="full"):
        buffer.flush()
    assert published == [[1]]
    assert len(buffer) == 2


def test_other_threads_have_buffers_of_their_own(app):
    with buffer_events() as buffer:
        thread = threading.Thread(target=app.send, args=("a.thread",))
        thread.start()
        thread.join()
        assert len(buffer) == 0
    assert waiting(app) == ["a.thread"]


def test_tasks_started_inside_share_the_buffer(app):
    async def main():
        with buffer_events() as buffer:
            await asyncio.gather(*(app.asend("a.task", {"n": n}) for n in range(5)))
            await asyncio.to_thread(app.send, "a.thread")
            assert len(buffer) == 6
            assert waiting(app) == []

    asyncio.run(main())
    assert len(waiting(app)) == 6


def test_threads_may_add_while_another_flushes():
    published = []
    buffer = Buffer()
    start = threading.Barrier(4)

    def add():
        start.wait()
        for number in range(500):
            buffer.add("key", published.extend, number)

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        buffer.flush()
    buffer.flush()
    assert sorted(published) == sorted(list(range(500)) * 3)
