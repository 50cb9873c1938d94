"""What goes through the broker, and how, and what if it is away."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time

import attrs
import pytest
from celery_program import Setup, make
from celery_world import TIMEOUT, both, world_of
from proxy import Proxy
from scale import campaign

from thorn_celery import hints, work
from thorn_celery.queues import BrokerError, depths_of
from thorn_core import ConfigurationError, Thorn
from thorn_core.testing import LocalRecipient


def quickly(send):
    """Send, seeing that it doesn't wait for a broker."""
    began = time.monotonic()
    receipt = send()
    assert time.monotonic() - began < hints.BROKER_SECONDS
    return receipt


def in_queue(world, number):
    """Wait until there are so many tasks in the queue."""
    until = time.monotonic() + TIMEOUT
    while (found := depths_of(world.thorn)[world.setup.name]) < number:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


@pytest.fixture
def cut_off(broker, postgresql):
    """A program whose way to the broker can be cut, and one that has another way."""
    with Proxy(broker.port) as proxy:
        setup = Setup(postgresql.url, broker.at_port(proxy.port).url, broker.name)
        with world_of(setup) as sender:
            there = attrs.evolve(setup, broker=broker.url)
            with world_of(there) as world:
                yield proxy, sender, world


def test_a_send_neither_fails_nor_waits_while_the_broker_is_away(cut_off, recipient, caplog):
    proxy, sender, world = cut_off
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker():
        sender.thorn.send("order.paid", {"number": 0})
        recipient.wait_for(1, TIMEOUT)
        proxy.cut()
        with caplog.at_level(logging.WARNING, "thorn_celery"):
            for number in range(1, 21):
                receipt = quickly(lambda n=number: sender.thorn.send("order.paid", {"number": n}))
                assert sender.thorn.message(receipt.message.id) is not None
            until = time.monotonic() + TIMEOUT
            while "can't send tasks" not in caplog.text:
                assert time.monotonic() < until
                time.sleep(0.05)
        world.settle(21, sweep=True)
        proxy.open()
        # It finds the broker again by itself.
        until = time.monotonic() + TIMEOUT
        number = 100
        while not sender.thorn.send("order.paid", {"number": number}).wait(2):
            assert time.monotonic() < until
            number += 1
    numbers = [request.json["data"]["number"] for request in recipient.received]
    assert len(numbers) == len(set(numbers))


def test_a_connection_that_broke_meanwhile_costs_nothing(cut_off, recipient):
    proxy, sender, world = cut_off
    world.thorn.subscribe("order.*", recipient.url)
    with world.worker():
        assert sender.thorn.send("order.paid").wait(TIMEOUT)
        proxy.cut()
        proxy.open()
        # The first may vanish in the broken connection; the one after it can't.
        sender.thorn.send("order.paid")
        time.sleep(2 * hints.LINGER)
        assert sender.thorn.send("order.paid").wait(TIMEOUT)


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_broker_that_never_answers_holds_up_nobody(postgresql, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        setup = Setup(postgresql.url, f"{scheme}://127.0.0.1:{port}//", "thorn_test_silent")
        with world_of(setup) as world:
            for _ in range(5):
                quickly(lambda: world.thorn.send("order.paid"))
            assert world.thorn.stats().unrouted == 5
            began = time.monotonic()
            world.thorn.dispatcher().close()
            assert time.monotonic() - began < 2 * hints.CLOSE_SECONDS


@both
def test_many_messages_make_few_tasks(world):
    number, began = 1500, time.monotonic()
    with world.thorn.store.transaction() as handle:
        for n in range(number):
            world.thorn.send("order.paid", {"number": n}, within=handle)
    world.thorn.dispatcher().close()
    seconds = time.monotonic() - began
    depth = depths_of(world.thorn)[world.setup.name]
    assert 0 < depth <= number / 100 + seconds / hints.LINGER + 2
    assert depth <= 0.1 * number


def test_events_have_queues_and_priorities_of_their_own(rabbitmq, postgresql, recipient):
    bills = f"{rabbitmq.name}_bills"
    conf = {
        "thorn_routes": {"bill.*": {"queue": bills, "priority": 7}, "*": {"priority": 2}},
        "task_queue_max_priority": 9,
    }
    setup = Setup(postgresql.url, rabbitmq.url, rabbitmq.name, conf=conf)
    with world_of(setup) as world:
        world.thorn.subscribe("*", recipient.url)
        world.thorn.send("order.paid")
        world.thorn.send("bill.paid")
        world.thorn.dispatcher().close()
        assert depths_of(world.thorn) == {world.setup.name: 1, bills: 1}
        with world.worker("-P", "solo", "-Q", bills):
            recipient.wait_for(1, TIMEOUT)
        assert [r.headers["hook-event"] for r in recipient.received] == ["bill.paid"]
        with world.celery.connection_for_read() as connection:
            message = connection.default_channel.basic_get(world.setup.name, no_ack=True)
        assert message.properties["priority"] == 2


@campaign
def test_what_fails_goes_on_in_the_queue_of_retries(rabbitmq, postgresql, recipient):
    retries = f"{rabbitmq.name}_retries"
    setup = Setup(postgresql.url, rabbitmq.url, rabbitmq.name, conf={"thorn_retry_queue": retries})
    recipient.answer(status=503, headers={"retry-after": "1"}, times=1)
    with world_of(setup) as world:
        world.thorn.subscribe("*", recipient.url)
        with world.worker("-P", "solo", "-Q", world.setup.name):
            receipt = world.thorn.send("order.paid")
            recipient.wait_for(1, TIMEOUT)
            until = time.monotonic() + TIMEOUT
            while depths_of(world.thorn)[retries] == 0:
                assert time.monotonic() < until
                world.sweep()
                time.sleep(0.3)
            assert len(recipient.received) == 1
        world.celery.conf.thorn_sweep_interval = 60
        with world.worker("-P", "solo", "-Q", f"{retries},{world.setup.name}"):
            until = time.monotonic() + TIMEOUT
            while not receipt.wait(1):
                assert time.monotonic() < until
                world.sweep()


def test_one_message_of_very_many_deliveries_is_spread(rabbitmq, postgresql, monkeypatch):
    monkeypatch.setattr(work, "TASK_SECONDS", 0.2)
    setup = Setup(
        postgresql.url, rabbitmq.url, rabbitmq.name, settings={"chunksize": 10, "concurrency": 4}
    )
    with world_of(setup) as world, LocalRecipient() as slow:
        slow.answer(delay=0.1)
        for _ in range(200):
            world.thorn.subscribe("*", slow.url)
        receipt = world.untold.send()
        work.deliver(world.thorn, [receipt.message.id])
        world.thorn.dispatcher().close()
        depth = depths_of(world.thorn)[world.setup.name]
        # Chunks of what is due for one recipient, as many as it may get of one look.
        assert 1 <= depth <= work.PAGES


def test_stats_tell_of_queues(small_world):
    world = small_world
    world.thorn.send("order.paid")
    in_queue(world, 1)

    def run(*options):
        done = subprocess.run(
            [sys.executable, "-m", "thorn_core.cli", "stats", *options],
            env={**os.environ, **world.environment(), "THORN_APP": "celery_program:webhooks"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"tasks in queue {world.setup.name}: 1" in run()
    lines = [json.loads(line) for line in run("--json").splitlines()]
    assert lines[-1] == {"queues": {world.setup.name: 1}}
    assert lines[0]["unrouted"] == 1


def test_depths_say_that_the_broker_is_away(postgresql):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    setup = Setup(postgresql.url, f"amqp://guest:hunter2@127.0.0.1:{port}//", "thorn_test")
    with world_of(setup) as world, pytest.raises(BrokerError) as raised:
        depths_of(world.thorn)
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_store_that_no_worker_sees_is_refused():
    with pytest.raises(ConfigurationError, match="background"):
        Thorn(dispatcher="celery", default=False)


def test_a_bad_setting_is_refused_by_name(postgresql):
    setup = Setup(postgresql.url, "memory://", "thorn_test", conf={"thorn_route": {}})
    thorn, _ = make(setup)
    thorn.store.create()
    with thorn, pytest.raises(ConfigurationError, match="did you mean thorn_routes"):
        thorn.send("order.paid")
