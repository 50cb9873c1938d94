"""Workers of Celery deliver what is sent, whatever becomes of tasks and of workers."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import pytest
from celery_program import Setup
from celery_world import TIMEOUT, both, world_of
from scale import campaign
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from thorn_celery import work
from thorn_celery.dispatcher import CeleryDispatcher
from thorn_core import Event


def ids(recipient):
    """How often each message arrived."""
    return Counter(request.headers["webhook-id"] for request in recipient.received)


@both
def test_what_is_committed_is_delivered_once_by_forked_workers(world, recipient):
    world.thorn.subscribe("order.*", recipient.url)
    engine = create_engine(world.setup.store)
    with world.worker() as worker:
        for number in range(20):
            with Session(engine) as session:
                world.thorn.send("order.paid", {"number": number}, within=session)
                if number % 2:
                    session.commit()
        world.settle(10)
        assert sorted(r.json["data"]["number"] for r in recipient.received) == [*range(1, 20, 2)]
        assert max(ids(recipient).values()) == 1
    assert worker.code == 0
    assert "Traceback" not in worker.text
    engine.dispose()


@both
def test_a_task_says_ids_and_no_payloads(world):
    world.thorn.send("order.paid", {"secret": "hunter2"})
    world.thorn.dispatcher().close()
    with world.celery.connection_for_read() as connection:
        message = connection.SimpleQueue(world.setup.name).get(timeout=TIMEOUT)
        message.ack()
    assert message.headers["task"] == "thorn.deliver"
    (message_ids,), kwargs, _ = message.payload
    assert (len(message_ids), kwargs) == (1, {})
    assert world.thorn.message(message_ids[0]).payload == {"secret": "hunter2"}
    assert "hunter2" not in str(message.body)


def test_a_failed_delivery_is_tried_again_by_the_sweep(world, recipient):
    recipient.answer(status=500, times=3)
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker():
        world.thorn.send("order.paid", {"number": 1})
        recipient.wait_for(1, TIMEOUT)
        world.settle(1, sweep=True)
    assert len(recipient.received) == 4


def test_what_no_task_tells_of_is_found_by_the_sweep(world, recipient):
    world.thorn.subscribe("order.*", recipient.url)
    for number in range(250):
        world.untold.send({"number": number})
    with world.worker():
        world.settle(250, sweep=True)
    assert max(ids(recipient).values()) == 1


def test_a_sweep_goes_on_in_a_thread_and_leaves_the_worker_free(
    postgresql, rabbitmq, recipient, monkeypatch
):
    setup = Setup(postgresql.url, rabbitmq.url, rabbitmq.name, settings={"chunksize": 10})
    with world_of(setup) as world:
        world.celery.conf.thorn_sweep_interval = TIMEOUT
        world.thorn.subscribe("order.*", recipient.url)
        with monkeypatch.context() as before:
            sent_at = datetime.now(UTC) - timedelta(seconds=2 * TIMEOUT)
            before.setattr(world.thorn, "clock", lambda: sent_at)
            for number in range(250):
                world.untold.send({"number": number})
        # Workers that do at once what they are told.
        monkeypatch.setattr(
            CeleryDispatcher, "tell", lambda self, route, some: work.deliver(world.thorn, some)
        )
        assert work.sweep(world.thorn) == work.PAGES * 10
        recipient.wait_for(250, TIMEOUT)


def test_tasks_that_come_twice_deliver_once(world, recipient):
    world.thorn.subscribe("order.*", recipient.url)
    receipts = [world.untold.send({"number": number}) for number in range(20)]
    message_ids = [receipt.message.id for receipt in receipts]
    for _ in range(8):
        world.celery.tasks["thorn.deliver"].delay(message_ids)
    with world.worker("-P", "prefork", "-c", "4"):
        world.settle(20)
        last = world.thorn.send("order.paid", {"n": 20})
        assert last.wait(TIMEOUT)
    assert max(ids(recipient).values()) == 1


def test_a_worker_that_is_killed_loses_nothing(world, recipient):
    recipient.answer(delay=0.2)
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker() as first:
        for number in range(300):
            world.thorn.send("order.paid", {"number": number})
        recipient.wait_for(20, TIMEOUT)
        first.kill()
    with world.worker():
        world.settle(300, sweep=True)
    twice = sum(count - 1 for count in ids(recipient).values())
    # What its two processes held: under way, or ended but not written yet.
    assert twice <= 2 * 2 * world.thorn.settings.recipient_concurrency


def test_a_process_of_the_pool_that_is_killed_loses_nothing(small_world, recipient):
    world = small_world
    recipient.answer(delay=0.2)
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker() as worker:
        for number in range(200):
            world.thorn.send("order.paid", {"number": number})
        recipient.wait_for(20, TIMEOUT)
        for child in worker.children():
            os.kill(child, signal.SIGKILL)
        world.settle(200, sweep=True)
    assert worker.code == 0


def test_a_worker_told_to_stop_ends_requests_and_leaves_the_rest(world, recipient):
    recipient.answer(delay=1.0)
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker() as worker:
        for number in range(60):
            world.thorn.send("order.paid", {"number": number})
        recipient.wait_for(10, TIMEOUT)
        worker.stop()
    assert worker.code == 0
    stats = world.thorn.stats()
    assert stats.deliveries["in_flight"] == 0
    assert stats.deliveries["delivered"] == len(recipient.received)
    assert max(ids(recipient).values()) == 1


def test_a_recipient_that_hangs_holds_up_nobody_else(small_world, recipient, other_recipient):
    world = small_world
    other_recipient.hang()
    world.thorn.subscribe("order.*", recipient.url)
    world.thorn.subscribe("order.*", other_recipient.url)
    # Waited for even twice, the hanging one would take longer than the test.
    paid = Event("order.paid", timeout=45, app=world.thorn)
    with world.worker("-P", "prefork", "-c", "1"):
        for number in range(300):
            paid.send({"number": number})
        recipient.wait_for(300, TIMEOUT)


@pytest.mark.parametrize(
    "pool",
    ["threads", "gevent", *(pytest.param(pool, marks=campaign) for pool in ("solo", "eventlet"))],
)
def test_other_pools_deliver_too(small_world, recipient, pool):
    # Imported here, eventlet would warn of every later fork.
    if pool in ("gevent", "eventlet") and find_spec(pool) is None:
        pytest.skip(f"{pool} isn't installed")
    world = small_world
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker("-P", pool, *([] if pool == "solo" else ["-c", "4"])) as worker:
        senders = [
            threading.Thread(target=world.thorn.send, args=("order.paid", {"n": n}))
            for n in range(20)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        world.settle(20)
        assert max(ids(recipient).values()) == 1
    assert worker.code == 0
    assert "Traceback" not in worker.text
