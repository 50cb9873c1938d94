"""Buffers: messages wait, and go together."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta

import pytest

from thorn_core import (
    Buffer,
    BufferNotEmpty,
    ConfigurationError,
    HeldEvents,
    MemoryStore,
    StoreError,
    Thorn,
    buffer_events,
)
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


# -- what outlives the block


def test_a_task_that_outlives_the_block_sends_directly(app):
    async def main():
        ended = asyncio.Event()

        async def later():
            await ended.wait()
            await app.asend("a.late")
            app.send("a.later")

        with buffer_events() as buffer:
            task = asyncio.create_task(later())
        ended.set()
        await task
        assert len(buffer) == 0

    asyncio.run(main())
    assert sorted(waiting(app)) == ["a.late", "a.later"]


def test_a_thread_and_a_timer_that_outlive_the_block_send_directly(app):
    ended = threading.Event()

    def in_a_thread():
        ended.wait(10)
        app.send("a.thread")

    async def main():
        timed = asyncio.Event()

        def in_a_timer():
            app.send("a.timer")
            timed.set()

        async with buffer_events():
            thread = asyncio.create_task(asyncio.to_thread(in_a_thread))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.001, in_a_timer)
        ended.set()
        await thread
        await timed.wait()

    asyncio.run(main())
    assert sorted(waiting(app)) == ["a.thread", "a.timer"]


def test_a_block_begun_after_the_one_around_it_ended_is_one_of_its_own(app):
    async def main():
        ended = asyncio.Event()

        async def later():
            await ended.wait()
            async with buffer_events() as buffer:
                app.send("a.one")
                assert len(buffer) == 1
                assert waiting(app) == []

        async with buffer_events():
            task = asyncio.create_task(later())
        ended.set()
        await task

    asyncio.run(main())
    assert waiting(app) == ["a.one"]


def test_a_task_of_a_nested_block_waits_for_the_outermost(app):
    async def main():
        async with buffer_events() as outer:
            async with buffer_events():
                task = asyncio.create_task(app.asend("a.one"))
            await task
            assert len(outer) == 1

    asyncio.run(main())
    assert waiting(app) == ["a.one"]


def test_no_message_falls_between_the_flush_and_the_end_of_a_block(app):
    """Threads send all the time while blocks end."""
    sent = 200
    start = threading.Barrier(3)

    async def main():
        async def send(name):
            def some():
                start.wait()
                for number in range(sent):
                    app.send(name, number)

            await asyncio.to_thread(some)

        tasks = []
        async with buffer_events():
            tasks = [asyncio.create_task(send(name)) for name in ("a.one", "a.two")]
            await asyncio.to_thread(start.wait)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    found = [
        (m.event, m.payload)
        for m in app.store.claim_messages(now=app.clock(), lease=timedelta(), limit=1000)
    ]
    assert sorted(found) == sorted((name, n) for name in ("a.one", "a.two") for n in range(sent))


def test_what_is_sent_after_held_events_were_released_is_not_held(app):
    async def main():
        released = asyncio.Event()

        async def later():
            await released.wait()
            app.send("a.late")

        held = HeldEvents()
        with held:
            app.send("a.held")
            task = asyncio.create_task(later())
        held.release()
        released.set()
        await task

    asyncio.run(main())
    assert sorted(waiting(app)) == ["a.held", "a.late"]


def test_a_block_may_end_in_another_context_than_it_began_in(app):
    def block():
        with buffer_events():
            app.send("a.one")
            yield

    generator = block()
    contextvars.copy_context().run(next, generator)
    next(generator, None)
    assert waiting(app) == ["a.one"]


# -- in a coroutine


class Busy(MemoryStore):
    """A store that does I/O, and can be kept busy."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.publishers = []

    def publish(self, messages, **options):
        self.publishers.append(threading.get_ident())
        assert self.free.wait(10)
        super().publish(messages, **options)


@pytest.fixture
def busy():
    with Thorn(store=Busy(), dispatcher="outbox") as app:
        yield app


async def while_busy(store, task):
    """Show that the loop goes on while the store is busy, then let the task end."""
    for _ in range(3):
        await asyncio.sleep(0.001)
    assert not task.done()
    store.free.set()
    return await task


def test_the_end_of_an_async_block_does_not_stop_the_loop(busy):
    async def block():
        async with buffer_events() as buffer:
            await busy.asend("a.one")
            busy.send("a.two")
            assert len(buffer) == 2
            busy.store.free.clear()

    async def main():
        await while_busy(busy.store, asyncio.create_task(block()))
        assert busy.store.publishers != [threading.get_ident()]
        assert len(busy.store.publishers) == 1

    asyncio.run(main())
    assert waiting(busy) == ["a.one", "a.two"]


def test_an_async_flush_does_not_stop_the_loop(busy):
    async def flush():
        async with buffer_events(flush_freq=2) as buffer:
            await busy.asend("a.one")
            assert await buffer.maybe_aflush() == 0
            await busy.asend("a.two")
            busy.store.free.clear()
            assert await buffer.maybe_aflush() == 2
            assert await buffer.aflush() == 0

    async def main():
        await while_busy(busy.store, asyncio.create_task(flush()))

    asyncio.run(main())


def test_a_plain_flush_in_an_async_block_names_the_way_out(app):
    async def main():
        async with buffer_events(flush_freq=1) as buffer:
            app.send("a.one")
            with pytest.raises(ConfigurationError, match=r"await buffer\.aflush"):
                buffer.flush()
            with pytest.raises(ConfigurationError, match="maybe_aflush"):
                buffer.maybe_flush()
            with buffer_events() as nested, pytest.raises(ConfigurationError):
                nested.flush()
            await asyncio.to_thread(buffer.flush)

    asyncio.run(main())
    assert waiting(app) == ["a.one"]


def test_a_plain_block_in_a_coroutine_does_not_stop_the_loop(busy, caplog):
    async def block():
        with buffer_events() as buffer:
            busy.store.free.clear()
            await busy.asend("a.one")
            assert len(buffer) == 0

    async def main():
        await while_busy(busy.store, asyncio.create_task(block()))

    asyncio.run(main())
    assert waiting(busy) == ["a.one"]
    assert "use: async with buffer_events()" in caplog.text


def test_a_plain_block_in_a_coroutine_still_holds_plain_sends(busy):
    async def main():
        with buffer_events() as buffer:
            busy.send("a.one")
            busy.send("a.two")
            assert len(buffer) == 2
        assert len(busy.store.publishers) == 1

    asyncio.run(main())
    assert waiting(busy) == ["a.one", "a.two"]


def test_what_may_have_to_be_discarded_is_not_published_at_once(busy):
    async def main():
        with buffer_events(discard_on_error=True):
            with pytest.raises(ConfigurationError, match="use: async with buffer_events"):
                await busy.asend("a.one")
            busy.send("a.two")
        with buffer_events():
            with buffer_events(discard_on_error=True), pytest.raises(ConfigurationError):
                await busy.asend("a.one")
            await busy.asend("a.three")
        with pytest.raises(RuntimeError):
            async with buffer_events(discard_on_error=True):
                await busy.asend("a.one")
                raise RuntimeError

    asyncio.run(main())
    assert waiting(busy) == ["a.two", "a.three"]


def test_an_error_of_the_store_reaches_the_end_of_the_block_and_loses_nothing(app, monkeypatch):
    def fail(messages, **_):
        raise StoreError("full")

    async def main():
        with pytest.raises(StoreError, match="full"):
            async with buffer_events() as buffer:
                await app.asend("a.one")
                monkeypatch.setattr(app.store, "publish", fail)
        monkeypatch.undo()
        assert await buffer.aflush() == 1

    asyncio.run(main())
    assert waiting(app) == ["a.one"]


def test_a_cancelled_task_still_publishes_what_it_had_sent(busy):
    async def block():
        async with buffer_events():
            await busy.asend("a.one")
            busy.store.free.clear()

    async def main():
        task = asyncio.create_task(block())
        while not busy.store.publishers:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await while_busy(busy.store, task)

    asyncio.run(main())
    assert waiting(busy) == ["a.one"]
