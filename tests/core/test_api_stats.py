"""How a subscription's deliveries went: `GET /hooks/{id}/stats/`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from api_client import LOCAL, Client, faults, problem

from thorn_core import Thorn
from thorn_core.api import Resource, stats
from thorn_core.testing import LocalRecipient

NOW = datetime(2026, 3, 1, 12, 40, 59, 123456, tzinfo=UTC)


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def app(clock):
    with Thorn(settings=LOCAL.evolve(retry=False), clock=clock) as app:
        yield app


@pytest.fixture
def ada(app):
    return Client(Resource(app), "ada")


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.mark.parametrize(
    ("period", "since", "until", "step"),
    [
        ("hour", "2026-03-01T11:41:00Z", "2026-03-01T12:41:00Z", 60),
        ("day", "2026-02-28T13:00:00Z", "2026-03-01T13:00:00Z", 1800),
        ("week", "2026-02-22T15:00:00Z", "2026-03-01T15:00:00Z", 10_800),
        ("month", "2026-01-31T00:00:00Z", "2026-03-02T00:00:00Z", 86_400),
    ],
)
def test_the_last_period_is_the_one_that_it_is_now(ada, period, since, until, step):
    hook = ada.subscribe()
    found = ada("GET", hook["subscription"] + "stats/", period=period).json
    assert (found["since"], found["until"], found["step"]) == (since, until, step)
    assert found["complete"]
    times = [datetime.fromisoformat(each["at"]) for each in found["periods"]]
    assert times[0] == datetime.fromisoformat(since)
    assert {b - a for a, b in pairwise(times)} == {timedelta(seconds=step)}
    assert times[-1] <= NOW < times[-1] + timedelta(seconds=step)


def test_what_became_of_deliveries_is_counted_when_they_were_made(ada, app, clock, recipient):
    hook = ada.subscribe(recipient.url)
    path = hook["subscription"] + "stats/"
    ada("POST", hook["subscription"] + "test/")
    clock.now += timedelta(hours=1)
    recipient.answer(status=500)
    ada("POST", hook["subscription"] + "test/")
    found = ada("GET", path).json["periods"]
    assert len(found) == 48
    counts = [tuple(each[name] for name in stats.OUTCOMES) for each in found]
    assert [(n, each) for n, each in enumerate(counts) if any(each)] == [
        (45, (1, 0, 0, 0)),
        (47, (0, 0, 1, 0)),
    ]
    assert [n for n, each in enumerate(found) if each["latency"]] == [45, 47]
    assert set(found[45]["latency"]) == {"p50", "p95", "p99"}
    assert 0 <= found[45]["latency"]["p50"] < 60
    # What will be tried again waits.
    clock.now += timedelta(minutes=30)
    with Thorn(settings=LOCAL, store=app.store, clock=clock, default=False) as other:
        other.send_test(hook["id"])
    assert ada("GET", path).json["periods"][-1]["waiting"] == 1


def test_of_very_many_deliveries_the_newest_are_counted(ada, monkeypatch, recipient):
    hook = ada.subscribe(recipient.url)
    path = hook["subscription"] + "stats/"
    for _ in range(2):
        ada("POST", hook["subscription"] + "test/")
    monkeypatch.setattr(stats, "COUNTED", 3)
    assert ada("GET", path).json["complete"]
    monkeypatch.setattr(stats, "COUNTED", 2)
    assert not ada("GET", path).json["complete"]


def test_what_is_asked_for_is_checked(ada):
    hook = ada.subscribe()
    refused = ada("GET", hook["subscription"] + "stats/", period="year", limit="5")
    found = faults(refused, 400, "malformed")
    assert found["period"]["allowed"] == ["hour", "day", "week", "month"]
    assert set(found) == {"period", "limit"}
    bob = Client(ada.resource, "bob")
    problem(bob("GET", hook["subscription"] + "stats/"), 404, "not-found")
