"""Asynchronous sessions: nothing of Thorn's stops their event loop while the store is busy."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from thorn_core import Event, ModelEvent, Thorn, buffer_events, webhook_model
from thorn_sqlalchemy import SqlStore

pytest.importorskip("aiosqlite")


class Base(DeclarativeBase):
    pass


@webhook_model
class Order(Base):
    __tablename__ = "orders"

    class webhooks:
        on_create = ModelEvent("order.created", signal_honors_transaction=False)
        on_paid = ModelEvent("order.paid")

        def payload(self, order):
            return {"note": order.note}

    number: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(default="")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "thorn.db"


@pytest.fixture
def app(path):
    store = SqlStore(f"sqlite:///{path}")
    store.create()
    with Thorn(store=store, dispatcher="outbox") as app:
        yield app


@pytest.fixture
def there(path, tmp_path):
    """Makes an engine of another database, or of the store's."""
    engines = []

    def make(same=False):
        engine = create_async_engine(f"sqlite+aiosqlite:///{path if same else tmp_path / 'x.db'}")
        engines.append(engine)
        return engine

    return make


def kept(app):
    return sorted((m.event, m.payload) for m in app.messages_to_route())


@asynccontextmanager
async def busy(path):
    """The store is busy until the loop has gone on for a while."""
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")

    async def let_go():
        for _ in range(5):
            await asyncio.sleep(0.002)
        lock.execute("ROLLBACK")

    # If the loop stood still, this would never let go, and the store would give up.
    letting_go = asyncio.create_task(let_go())
    try:
        yield
    finally:
        await letting_go
        lock.close()


def test_a_commit_elsewhere_publishes_beside_the_loop(app, path, there):
    async def main():
        engine = there()
        async with busy(path), AsyncSession(engine) as session, session.begin():
            await app.asend("a.session", 1, within=session)
        async with busy(path), engine.begin() as connection:
            await app.asend("a.connection", 2, within=connection)
        await engine.dispose()

    asyncio.run(main())
    assert kept(app) == [("a.connection", 2), ("a.session", 1)]


def test_the_end_of_a_buffer_publishes_beside_the_loop(app, path):
    async def main():
        async with busy(path), buffer_events():
            await app.asend("a.held", 1)
        async with busy(path):
            with buffer_events():
                await app.asend("a.direct", 2)

    asyncio.run(main())
    assert kept(app) == [("a.direct", 2), ("a.held", 1)]


def test_a_model_event_that_waits_for_no_commit_publishes_beside_the_loop(app, path, there):
    async def main():
        engine = there()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            async with busy(path):
                session.add(Order(number=1, note="x"))
                await session.flush()
            await session.rollback()
        await engine.dispose()

    asyncio.run(main())
    assert kept(app) == [("order.created", {"note": "x"})]


def test_a_commit_that_is_cancelled_loses_no_message_and_no_connection(app, path, there):
    async def main():
        engine = there()
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        publishing = asyncio.Event()
        loop = asyncio.get_running_loop()
        publish = app.store._publish

        def tell(messages, written):
            loop.call_soon_threadsafe(publishing.set)
            publish(messages, written)

        app.store._publish = tell

        async def in_a_connection():
            async with engine.begin() as connection:
                await app.asend("a.b", within=connection)

        async def in_a_session():
            async with AsyncSession(engine) as session, session.begin():
                await app.asend("a.b", within=session)

        for commit in (in_a_connection, in_a_session):
            publishing.clear()
            task = asyncio.create_task(commit())
            await asyncio.wait_for(publishing.wait(), 10)
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()  # the message is being written
            lock.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await task
            lock.execute("BEGIN IMMEDIATE")
        lock.close()
        assert engine.pool.checkedout() == 0
        await engine.dispose()

    asyncio.run(main())
    assert len(kept(app)) == 2


def test_a_model_event_is_sent_by_hand_within_an_asynchronous_session(app, there):
    async def main():
        engine = there(same=True)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            session.add(Order(number=1, note="loaded late"))
        async with AsyncSession(engine) as session, session.begin():
            order = await session.get(Order, 1)
            session.expire(order, ["note"])
            paid = Order.webhooks.events["on_paid"]
            await paid.asend(instance=order, within=session, idempotency_key="1")
            receipt = await paid.asend_from_instance(order, within=session, idempotency_key="1")
            assert receipt.duplicate
        await engine.dispose()

    asyncio.run(main())
    sent = [payload for name, payload in kept(app) if name == "order.paid"]
    assert sent == [{"note": "loaded late"}]


def test_on_sqlite_an_event_that_waits_for_no_commit_waits_all_the_same(app, path, caplog):
    """Outside of the transaction it would wait for the transaction's own lock."""
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Order(number=1, note="rolled back"))
        session.flush()
        session.rollback()
        session.add(Order(number=2, note="committed"))
        session.commit()
    engine.dispose()
    assert kept(app) == [("order.created", {"note": "committed"})]
    assert caplog.text.count("signal_honors_transaction=False has no effect") == 1


def test_in_a_transaction_of_its_own_a_keyed_send_knows_the_one_before(app, path):
    engine = create_engine(f"sqlite:///{path}")
    placed = Event("order.placed", app=app)
    first = placed.send({"n": 1}, idempotency_key="7")
    with Session(engine) as session, session.begin():
        again = placed.send({"n": 2}, idempotency_key="7", within=session)
        new = placed.send({"n": 3}, idempotency_key="8", within=session)
        assert (first.duplicate, again.duplicate, new.duplicate) == (False, True, False)
    assert again.message.payload == {"n": 1}
    assert new.message.payload == {"n": 3}
    engine.dispose()
