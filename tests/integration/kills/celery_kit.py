"""The kit of any store, with workers of Celery in place of Thorn's own, and a broker that fails."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import attrs
from brokers import Broker, broker_of, make_celery
from celery import Celery
from kombu.exceptions import OperationalError
from proxy import Proxy

from kills.kit import Harm, Kit
from thorn_celery import install
from thorn_core import Settings, Thorn

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
# Of the messages sent last, some of which are under way, so many at most are told of again.
LATEST = 500
# Messages of one such task.
TOLD = 10


@attrs.define(slots=False)
class CeleryKit:
    """Programs that use a store by its own kit, and Celery.

    Attributes:
        kit: The store's.
        broker: URL by which they reach the broker.
        name: Of the queue.
        more: What can be done to the broker; doesn't travel.
    """

    kit: Kit
    broker: str
    name: str
    more: Mapping[str, Harm] = attrs.field(factory=dict)
    # Celery's workers take seconds to begin, and to find a broker again.
    rate: ClassVar[int] = 60

    def __reduce__(self) -> tuple[Any, ...]:
        return CeleryKit, (self.kit, self.broker, self.name)

    def __getattr__(self, name: str) -> Any:
        # All else is the store's.
        return getattr(self.kit, name)

    @property
    def modules(self) -> tuple[str, ...]:
        return (
            *self.kit.modules,
            __name__,
            "celery.apps.worker",
            "celery.concurrency.solo",
            "kombu.transport.pyamqp",
            "kombu.transport.redis",
        )

    @cached_property
    def celery(self) -> Celery:
        return make_celery(
            self.broker,
            self.name,
            thorn_sweep_interval=SWEEP_SECONDS,
            worker_hijack_root_logger=False,
            broker_connection_max_retries=None,
        )

    def app(self, settings: Settings, *, number: int = 0) -> Thorn:
        app = self.kit.app(settings, number=number, dispatcher="celery")
        install(self.celery, app)
        return app

    def work(self, app: Thorn) -> None:
        threading.Thread(target=self._beat, daemon=True).start()
        self.celery.Worker(
            pool="solo",
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        ).start()

    def _beat(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            try:
                self.celery.tasks["thorn.sweep"].apply_async(expires=SWEEP_SECONDS)
            except OperationalError as error:
                logger.warning("no sweep: %s", error)

    def harms(self) -> Mapping[str, Harm]:
        return {**self.kit.harms(), **self.more}


@contextmanager
def over_celery(kit: Kit, kind: str) -> Iterator[CeleryKit]:
    """A store's kit over Celery, on a broker of a kind that can be done harm."""
    with broker_of(kind) as broker, Proxy(broker.port) as way:
        harm = _BrokerHarm(kit, broker, way)
        more = {"broker restarted": harm.restart, "task sent twice": harm.send_twice}
        yield CeleryKit(kit, broker.at_port(way.port).url, broker.name, more)


class _BrokerHarm:
    """What can be done to a broker.

    Args:
        kit: The store's.
        broker: As it is reached from here.
        way: By which the programs reach it.
    """

    def __init__(self, kit: Kit, broker: Broker, way: Proxy) -> None:
        self._kit, self._broker, self._way = kit, broker, way

    def restart(self, rng: random.Random) -> int:
        """Be away for a while; every other time it has lost its tasks meanwhile."""
        self._way.cut()
        if rng.random() < 0.5:
            self._broker.lose_tasks()
        time.sleep(rng.uniform(0.2, 2.0))
        self._way.open()
        return 1

    def send_twice(self, rng: random.Random) -> int:
        """Tell of messages that are committed once more, by each task twice."""
        latest = sorted(self._kit.truth())[-LATEST:]
        ids = rng.sample(latest, min(len(latest), rng.randint(20, 60)))
        tasks = [ids[at : at + TOLD] for at in range(0, len(ids), TOLD)]
        with (
            make_celery(self._broker.url, self._broker.name) as celery,
            celery.connection_for_write() as connection,
        ):
            for message_ids in tasks * 2:
                celery.send_task("thorn.deliver", args=[message_ids], connection=connection)
        return len(tasks)
