"""The kit of the programs that are killed, with workers of Celery in place of Thorn's own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from celery import Celery
from celery_program import make_celery
from kills.sqlalchemy_kit import SqlAlchemyKit

from thorn_celery import install
from thorn_core import Settings, Thorn

SWEEP_SECONDS = 1.0


class CeleryKit(SqlAlchemyKit):
    """Programs that use a Session, and Celery.

    Args:
        url: Of the database.
        broker: URL of the broker.
        name: Of the queue.
    """

    modules = (*SqlAlchemyKit.modules, __name__, "celery.apps.worker", "celery.concurrency.solo")

    def __init__(self, url: str, broker: str, name: str) -> None:
        super().__init__(url)
        self.broker, self.name = broker, name

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "broker": self.broker, "name": self.name}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)

    @cached_property
    def celery(self) -> Celery:
        return make_celery(
            self.broker,
            self.name,
            thorn_sweep_interval=SWEEP_SECONDS,
            worker_hijack_root_logger=False,
        )

    def app(self, settings: Settings, *, number: int = 0) -> Any:
        source = self.engine if number % 2 else self.url
        app = Thorn(store=source, dispatcher="celery", settings=settings)
        install(self.celery, app)
        return CeleryWorker(self.celery, app) if settings.user_agent.startswith("worker") else app


class CeleryWorker:
    """What a worker's program takes for its app, and its worker."""

    def __init__(self, celery: Celery, app: Thorn) -> None:
        self._celery, self._app = celery, app
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._app.close()

    def worker(self) -> Self:
        return self

    def run(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()
        self._celery.Worker(
            pool="solo",
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        ).start()

    def _beat(self) -> None:
        while not self._ended.wait(SWEEP_SECONDS):
            self._celery.tasks["thorn.sweep"].apply_async(expires=SWEEP_SECONDS)
