"""Retry policies."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import ConfigurationError, RetryPolicy
from thorn_core.retries import LONGEST_DELAY, MOST_DELAYS

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
    "schedule",
    [
        *(5, "55", b"55", None, {5: 1}, {5, 60}),
        *((-1,), (float("nan"),), (float("inf"),), (10**400,), ("5",), (True,), (None,)),
        *([1] * (MOST_DELAYS + 1), itertools.repeat(1)),
    ],
)
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(ConfigurationError, match="schedule"):
        RetryPolicy(schedule)


@given(st.floats(LONGEST_DELAY, exclude_min=True))
def test_a_wait_is_capped(wait):
    assert RetryPolicy((LONGEST_DELAY,)).schedule == (LONGEST_DELAY,)
    with pytest.raises(ConfigurationError, match="30 days"):
        RetryPolicy((5, wait))


def test_the_number_of_waits_is_capped():
    assert RetryPolicy([1] * MOST_DELAYS).max_attempts == MOST_DELAYS + 1
    assert RetryPolicy.constant(1, MOST_DELAYS).max_attempts == MOST_DELAYS + 1
    for times in (MOST_DELAYS + 1, 10**12):
        with pytest.raises(ConfigurationError, match="at most 1000"):
            RetryPolicy.constant(1, times)


@pytest.mark.parametrize("times", [-1, 2.5, "3", None, True])
def test_what_is_no_number_of_retries_is_refused(times):
    with pytest.raises(ConfigurationError, match=r"times is .* whole number"):
        RetryPolicy.constant(60, times)


@pytest.mark.parametrize(("failures", "random"), [(0, 0.5), (-1, 0.5), (1, 1.1), (1, -0.1)])
def test_a_wait_is_asked_for_within_its_ranges(failures, random):
    with pytest.raises(ValueError, match=r"failures=|random="):
        RetryPolicy((5, 60)).delay(failures, random=random)


@pytest.mark.parametrize("jitter", [-0.1, 1.1, "0.2", None, float("nan")])
def test_what_is_no_jitter_is_refused(jitter):
    with pytest.raises(ConfigurationError, match="jitter is"):
        RetryPolicy((5,), jitter)
