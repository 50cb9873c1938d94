"""A program with a Thorn and a Celery app: what a test's process sends by, and its workers run."""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
from brokers import make_celery
from celery import Celery

from thorn_celery import install
from thorn_core import Settings, Thorn


@attrs.frozen
class Setup:
    """What a program is made of; travels to its workers in the environment.

    Attributes:
        store: URL of the database.
        broker: URL of the broker.
        name: What everything in the broker is named after.
        settings: Of Thorn.
        conf: Of Celery.
    """

    store: str
    broker: str
    name: str
    settings: dict[str, Any] = attrs.field(factory=dict)
    conf: dict[str, Any] = attrs.field(factory=dict)

    def environment(self) -> dict[str, str]:
        return {"CELERY_PROGRAM": json.dumps(attrs.asdict(self))}


def make(setup: Setup) -> tuple[Thorn, Celery]:
    """The two apps; the first isn't made the default one."""
    quick = {"retry_max": 50, "retry_delay": 0.5, "lease": 6.0, "event_timeout": 2.0}
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        **{**quick, **setup.settings},
    )
    thorn = Thorn(store=setup.store, dispatcher="celery", settings=settings, default=False)
    # A test decides when there is a sweep.
    celery = make_celery(setup.broker, setup.name, thorn_sweep_interval=0.5, **setup.conf)
    install(celery, thorn)
    return thorn, celery


if "CELERY_PROGRAM" in os.environ:
    webhooks, celery = make(Setup(**json.loads(os.environ["CELERY_PROGRAM"])))
