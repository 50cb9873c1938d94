"""Brokers and databases; names of a test's own in each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("celery")

from brokers import Broker, broker_of
from celery_program import Setup
from celery_world import World, world_of
from places import Place, make_place
from scale import campaign

from thorn_core.testing import LocalRecipient


# A campaign tries the other pairs; some tests choose `celery_world.both`.
@pytest.fixture(
    params=[
        pytest.param(("rabbitmq", "postgresql"), id="rabbitmq-postgresql"),
        pytest.param(("redis", "mariadb"), id="redis-mariadb", marks=campaign),
        pytest.param(("rabbitmq", "mariadb"), id="rabbitmq-mariadb", marks=campaign),
        pytest.param(("redis", "postgresql"), id="redis-postgresql", marks=campaign),
    ]
)
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def broker(pair) -> Iterator[Broker]:
    with broker_of(pair[0]) as broker:
        yield broker


@pytest.fixture
def place(pair, tmp_path) -> Iterator[Place]:
    yield from make_place(pair[1], tmp_path)


@pytest.fixture
def postgresql(tmp_path) -> Iterator[Place]:
    yield from make_place("postgresql", tmp_path)


@pytest.fixture
def rabbitmq() -> Iterator[Broker]:
    with broker_of("rabbitmq") as broker:
        yield broker


@pytest.fixture
def recipient() -> Iterator[LocalRecipient]:
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def world(broker, place) -> Iterator[World]:
    """A program on each broker and each database."""
    with world_of(Setup(place.url, broker.url, broker.name)) as world:
        yield world


@pytest.fixture
def small_world(rabbitmq, postgresql) -> Iterator[World]:
    """A program on one of each."""
    with world_of(Setup(postgresql.url, rabbitmq.url, rabbitmq.name)) as world:
        yield world


@pytest.fixture
def other_recipient() -> Iterator[LocalRecipient]:
    with LocalRecipient() as recipient:
        yield recipient
