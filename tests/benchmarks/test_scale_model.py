"""The model of Thorn at scale keeps to the rules of what it models."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import attrs
import pytest
from scale_costs import Cost, Costs
from scale_model import RETRY_AFTER, Clock, Cores, Model, Site, World

from thorn_core import RetryPolicy, Settings

STEP = Cost(client=1.0, server=0.3, wait=0.3, client_each=0.02, server_each=0.01, wait_each=0.01)
COSTS = Costs(
    **dict.fromkeys(("send", "lease", "insert", "purge", "route", "claim", "record"), STEP),
    request=0.1,
    recipient=0.02,
    kept=4000,
    logged=6000,
)
WELL = World(recipients=50, down=0, limited=0, slow=0)


class Watched(Model):
    """A model that notes which attempts are made, and when."""

    def __init__(self, *arguments, **options):
        self.attempts = defaultdict(list)
        super().__init__(*arguments, **options)

    def attempted(self, item):
        self.attempts[item.id, item.subscription_id].append(self.clock.now)
        super().attempted(item)


def make(world=WELL, *, processes=1, cores=4, seed=1, settings=None, costs=COSTS):
    site = Site(processes=processes, cores=cores, settings=settings or Settings())
    return Watched(costs, world, site, seed=seed)


# -- time and processors


def test_what_happens_at_once_happens_in_order():
    clock, seen = Clock(), []

    def noted(name):
        seen.append(name)
        yield from ()

    for name, seconds in (("c", 2), ("a", 1), ("b", 1), ("late", 5)):
        clock.start(noted(name), seconds)
    clock.run(5)
    assert seen == ["a", "b", "c"]
    assert clock.now == 5


def ends_of(clock, cores, number):
    """When each of so many that want a processor for a second, all at once, has had it."""
    ends = []

    def steps():
        yield from cores.use(1000)
        ends.append(clock.now)

    for _ in range(number):
        clock.start(steps())
    clock.run(10)
    return ends


def test_processors_serve_as_many_as_there_are():
    clock = Clock()
    cores = Cores(clock, 2)
    assert ends_of(clock, cores, 3) == [1.0, 1.0, 2.0]
    assert cores.used == 3.0


def test_a_thread_does_one_thing_after_the_other_however_many_processors_there_are():
    clock = Clock()
    cores = Cores(clock, 2)
    assert ends_of(clock, Cores(clock, 1, on=cores), 2) == [1.0, 2.0]
    assert cores.used == 2.0


# -- the model


def test_all_that_is_sent_is_delivered_once():
    model = make(processes=3)
    model.fill(2000)
    model.run(20)
    assert model.database.delivered == 2000
    assert Counter(map(len, model.attempts.values())) == {1: 2000}


def test_a_seed_gives_the_same_run_again():
    def run(seed):
        model = make(World(recipients=100), seed=seed)
        model.send(200, 5)
        model.run(8)
        return dict(model.attempts)

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("limit", ["concurrency", "recipient_concurrency"])
def test_no_more_is_under_way_than_settings_allow(limit):
    settings = Settings(**{limit: 3})
    number = 1 if limit == "recipient_concurrency" else 50
    # Below the second after which slow ones make room for others.
    world = attrs.evolve(WELL, recipients=number, median=0.5, spread=0, tail=None)
    model = make(world, settings=settings)
    model.fill(60)
    model.run(30)
    assert model.database.delivered == 60
    starts = sorted(at for attempts in model.attempts.values() for at in attempts)
    assert all(later - first >= 0.5 for first, later in zip(starts, starts[3:], strict=False))


def test_failures_are_tried_again_by_the_policy():
    policy = RetryPolicy(schedule=(5, 20), jitter=0)
    settings = Settings(retry_policy=policy, event_timeout=1)
    model = make(attrs.evolve(WELL, recipients=1, down=1.0), settings=settings)
    model.fill(1)
    model.run(100)
    (attempts,) = model.attempts.values()
    waits = [later - first for first, later in pairwise(attempts)]
    # The timeout, the wait, and up to a poll interval.
    assert waits == [pytest.approx(6.5, abs=0.6), pytest.approx(21.5, abs=0.6)]
    assert model.database.delivered == 0


def test_a_recipient_that_asks_for_time_is_given_it():
    model = make(attrs.evolve(WELL, recipients=1, limited=1.0, median=0.001, spread=0, tail=None))
    model.send(1, 60)
    asked = []
    answer = model.recipients.answer

    def noted(name, timeout):
        seconds, status = answer(name, timeout)
        asked.append((model.clock.now, status))
        return seconds, status

    model.recipients.answer = noted
    model.run(60)
    limited = [at for at, status in asked if status == 429]
    assert limited
    # What was under way already, beside it, doesn't count.
    for until in limited:
        assert not [at for at, _ in asked if until + 0.1 < at < until + RETRY_AFTER]


def test_those_that_do_not_answer_hold_up_nobody():
    world = attrs.evolve(WELL, recipients=100, down=0.1)
    model = make(world)
    model.send(300, 20)
    model.run(20)
    assert model.quantile(0.99) < 0.5
    down = [at for (_, name), at in model.attempts.items() if name in model.recipients.down]
    assert 0 < len(down) < 10 * 100


def test_another_process_takes_over_when_the_lease_of_a_dead_one_is_over():
    settings = Settings(lease=20)
    world = attrs.evolve(WELL, median=2.0, spread=0, tail=None)
    model = make(world, processes=2, settings=settings)
    model.fill(300)
    model.run(0.5)
    held = len(model.processes[0].held)
    assert held
    model.processes[0].die()
    model.run(19)
    assert model.database.delivered == 300 - held
    model.run(60)
    assert model.database.delivered == 300
    assert max(map(len, model.attempts.values())) == 2


def test_more_processes_deliver_more_until_the_database_is_busy():
    slow = attrs.evolve(STEP, server_each=0.4)
    costs = attrs.evolve(COSTS, request=1.0, lease=slow, claim=slow)

    def rate(processes, cores):
        # So many that claims at the same time find recipients each.
        world = attrs.evolve(WELL, recipients=1000)
        model = make(world, processes=processes, cores=cores, costs=costs)
        model.fill(20_000)
        model.run(4)
        return model.database.delivered / 4, model.cores.used / 4 / cores

    one, _ = rate(1, 8)
    four, _ = rate(4, 8)
    assert 3.5 < four / one < 4.5
    held_up, busy = rate(16, 1)
    assert held_up < 8 * one
    assert busy > 0.95


def test_there_are_figures_of_what_steps_cost():
    costs = Costs.read()
    assert 0 < costs.request < 10
    assert 0 < costs.send.server < costs.lease.server < 10
