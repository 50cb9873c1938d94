"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import pytest
from django.db import connections
from kills.django_kit import DjangoKit
from kills.verdict import check
from scale import campaign, scaled, size

pytestmark = scaled


# Fewer than the other store is tested with: the engine is the same.
@pytest.mark.parametrize(
    "server_alias", ["mariadb", pytest.param("postgresql", marks=campaign)], indirect=True
)
def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(server_alias, tmp_path):
    connections[server_alias].close()
    check(DjangoKit(server_alias), tmp_path, messages=size(1000, short=3000, long=30_000))


# With the other store, the other pairs.
@pytest.mark.parametrize(
    ("broker", "server_alias"),
    [
        pytest.param("redis", "postgresql", marks=campaign),
        pytest.param("rabbitmq", "mariadb", marks=campaign),
    ],
    indirect=["server_alias"],
)
def test_over_celery_too_whoever_is_killed(broker, server_alias, tmp_path):
    pytest.importorskip("celery")
    from kills.celery_kit import over_celery

    connections[server_alias].close()
    with over_celery(DjangoKit(server_alias), broker) as kit:
        check(kit, tmp_path, messages=size(800, short=2000, long=20_000))
