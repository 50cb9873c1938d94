"""Retry policies."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import ConfigurationError, RetryPolicy
from thorn_core.retries import LONGEST_DELAY

delays = st.floats(0, LONGEST_DELAY, allow_nan=False)
policies = st.builds(RetryPolicy, st.lists(delays, max_size=12), st.floats(0, 1))
unit = st.floats(0, 1)


@given(policies, st.integers(1, 20), unit)
def test_a_wait_stays_within_the_jitter(policy, failures, random):
    delay = policy.delay(failures, random=random)
    if failures > len(policy.schedule):
        assert delay is None
    else:
        base = policy.schedule[failures - 1]
        slack = 1e-6 * base + 1e-6
        low, high = base * (1 - policy.jitter), base * (1 + policy.jitter)
        assert low - slack <= delay.total_seconds() <= high + slack


@given(policies, st.integers(1, 12), unit, unit)
def test_a_wait_grows_with_the_random_number(policy, failures, one, other):
    low, high = sorted((one, other))
    first, second = (policy.delay(failures, random=r) for r in (low, high))
    assert first is None or first <= second


@given(policies)
def test_the_attempts_are_one_more_than_the_waits(policy):
    assert policy.max_attempts == len(policy.schedule) + 1
    assert policy.delay(policy.max_attempts, random=0.5) is None


@given(st.lists(delays, min_size=1).map(sorted), unit)
def test_without_jitter_a_growing_schedule_gives_growing_waits(schedule, random):
    policy = RetryPolicy(schedule, jitter=0)
    waits = [policy.delay(n, random=random) for n in range(1, len(schedule) + 1)]
    assert waits == sorted(waits)


def test_the_default_goes_on_for_three_days():
    policy = RetryPolicy()
    assert policy.max_attempts == 10
    assert timedelta(days=2.5) < timedelta(seconds=sum(policy.schedule)) < timedelta(days=3.5)


def test_thorns_options_make_a_constant_policy():
    assert RetryPolicy.constant(60, 3) == RetryPolicy((60, 60, 60), jitter=0)
    assert RetryPolicy.never().max_attempts == 1


@pytest.mark.parametrize(
    "schedule", [5, "55", None, (-1,), (float("nan"),), ("5",), (True,), (1e9,), [1] * 1001]
)
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(ConfigurationError, match="schedule"):
        RetryPolicy(schedule)


@pytest.mark.parametrize("jitter", [-0.1, 1.1, "0.2", None, float("nan")])
def test_what_is_no_jitter_is_refused(jitter):
    with pytest.raises(ConfigurationError, match="jitter is"):
        RetryPolicy((5,), jitter)
