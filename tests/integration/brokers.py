"""Brokers: RabbitMQ and Redis; names of a test's own in each."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from celery import Celery
from kombu import Connection

BROKERS = {
    "rabbitmq": os.environ.get("THORN_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
    "redis": os.environ.get("THORN_TEST_REDIS", "redis://127.0.0.1:6379/0"),
}


@attrs.frozen
class Broker:
    """Names of a test's own in a broker.

    Attributes:
        kind: `rabbitmq` or `redis`.
        url: Its URL.
        name: What queues are named after.
    """

    kind: str
    url: str
    name: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or {"rabbitmq": 5672, "redis": 6379}[self.kind]

    def at_port(self, port: int) -> Broker:
        """The same, where a proxy listens for it."""
        parts = urlsplit(self.url)
        who, at, _ = parts.netloc.rpartition("@")
        netloc = f"{who}{at}{parts.hostname}:{port}"
        return attrs.evolve(self, url=parts._replace(netloc=netloc).geturl())

    def lose_tasks(self) -> None:
        """Lose what waits; a Redis that keeps nothing loses all else as well."""
        if self.kind == "redis":
            self._delete_keys()
            return
        with (
            Connection(self.url) as connection,
            connection.channel() as channel,
            suppress(connection.channel_errors),  # the queue isn't there yet
        ):
            channel.queue_purge(self.name)

    def clean(self) -> None:
        """Remove what a test has left there."""
        if self.kind == "redis":
            self._delete_keys()
            return
        with Connection(self.url) as connection:
            for name in ("", "_bills", "_retries"):
                with connection.channel() as channel:
                    channel.queue_delete(queue=self.name + name)
                    channel.exchange_delete(self.name + name)

    def _delete_keys(self) -> None:
        import redis

        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(f"{self.name}*", count=1000):
                client.delete(key)


@contextmanager
def broker_of(kind: str) -> Iterator[Broker]:
    """A broker; what a test leaves there is removed."""
    broker = Broker(kind, BROKERS[kind], f"thorn_test_{uuid.uuid4().hex[:12]}")
    try:
        with Connection(broker.url, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1)
    except Exception as error:
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail(f"{kind} is needed: {error}")
        pytest.skip(f"{kind} isn't there: {error}")
    try:
        yield broker
    finally:
        broker.clean()


def make_celery(broker: str, name: str, **conf: Any) -> Celery:
    """A Celery app that keeps to names of its own in a broker."""
    celery = Celery(name, broker=broker, set_as_current=False)
    celery.conf.update(
        task_default_queue=name,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=(
            {"global_keyprefix": f"{name}:", "visibility_timeout": 5}
            if broker.startswith("redis")
            else {}
        ),
        **conf,
    )
    return celery
