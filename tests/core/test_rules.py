"""What attempts do to subscriptions and recipients, whatever the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from thorn_core.retries import RetryPolicy
from thorn_core.stores.rules import Health, after_completion, judge_subscriptions, pauses
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Subscription,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIVE_DAYS = timedelta(days=5)
DAY = 24.0


def hours(number):
    return NOW + timedelta(hours=number)


def completion(at=0.0, status=500, key="sub_1", *, attempt=True, **outcome):
    """How an attempt ended, so many hours after the beginning."""
    subscription = Subscription(
        id=key, events=("*",), url="https://e.com/", created_at=NOW, updated_at=NOW
    )
    delivery = Delivery(
        id="dlv_1_1", message_id="msg_1", subscription_id=key, event="a.b", due_at=NOW,
        created_at=NOW,
    )  # fmt: skip
    message = Message(id="msg_1", event="a.b", data=b"1", at=NOW)
    made = Attempt(
        id="att_1", delivery_id="dlv_1_1", number=1, at=hours(at), duration=1.0, status=status
    )
    return Completion(
        claim=Claim(delivery=delivery, message=message, subscription=subscription, token="t"),
        outcome=Outcome(**{"state": DeliveryState.PENDING, "disable_after": FIVE_DAYS, **outcome}),
        attempt=made if attempt else None,
        at=hours(at),
    )


def run(times, health=None, **outcome):
    """The health after failures at these hours, and when that disabled or warned."""
    health, disabled, warned = health or Health(), None, []
    for at in times:
        changes = judge_subscriptions({"sub_1": health}, [completion(at, **outcome)])
        health = changes.health.get("sub_1", health)
        if changes.disabled:
            disabled = at
        if changes.warned:
            warned.append(at)
    return health, disabled, warned


def test_five_days_of_failures_disable_at_the_first_failure_after_them():
    health, disabled, _ = run([12.0 * n for n in range(12)])
    assert disabled == 5 * DAY
    assert not health.enabled
    assert health.disabled_reason == "all 11 attempts have failed since 2026-03-01T12:00:00Z"


def test_a_success_ends_the_streak():
    health, _, _ = run([n * 12.0 for n in range(10)])
    healthy = after_completion(health, completion(5 * DAY, status=204))
    assert healthy == Health()
    _, disabled, _ = run([6 * DAY], health=healthy)
    assert disabled is None


@pytest.mark.parametrize("quiet", [2.01 * DAY, 30 * DAY])
def test_failures_more_than_two_days_apart_do_not_belong_together(quiet):
    outage = [float(n) for n in range(96)]
    health, disabled, _ = run([*outage, 95.0 + quiet])
    assert disabled is None
    assert (health.failing_since, health.failures) == (hours(95.0 + quiet), 1)


def test_few_failures_do_not_disable_however_long_they_last():
    assert run([30.0 * n for n in range(9)])[1] is None
    assert run([30.0 * n for n in range(10)])[1] == 270.0


def test_the_default_policy_alone_never_waits_longer_than_a_streak_may():
    at, times = 0.0, [0.0]
    for number in range(1, len(RetryPolicy().schedule) + 1):
        at += RetryPolicy().delay(number, random=1.0).total_seconds() / 3600
        times.append(at)
    health, _, _ = run(times)
    assert health.failing_since == NOW


def test_the_owner_is_warned_at_half_and_at_nine_tenths_of_the_time_once_each():
    _, disabled, warned = run([float(n) for n in range(130)])
    assert warned == [60.0, 108.0]
    assert disabled == 120.0


def test_one_failure_past_both_shares_warns_once():
    assert run([0.0, 40.0, 80.0, 118.0])[2] == [80.0, 118.0]
    assert run([0.0, 47.0, 59.0, 106.0, 119.0])[2] == [106.0, 119.0]


def test_without_a_limit_nothing_disables_or_warns():
    _, disabled, warned = run([float(n) for n in range(500)], disable_after=None)
    assert (disabled, warned) == (None, [])


def test_what_made_no_request_changes_nothing():
    health, disabled, _ = run([float(n) for n in range(200)], attempt=False)
    assert (health, disabled) == (Health(), None)


def test_an_outcome_can_disable_at_once_and_only_once():
    gone = completion(1, status=410, disable="the recipient answered 410 Gone")
    changes = judge_subscriptions({"sub_1": Health()}, [gone, completion(2, disable="again")])
    assert changes.disabled == {"sub_1": hours(1)}
    assert changes.health["sub_1"].disabled_reason == "the recipient answered 410 Gone"


def test_completions_count_in_the_order_they_ended():
    failing = Health(failing_since=hours(-200), failures=50, last_failure_at=hours(-1))
    changes = judge_subscriptions({"sub_1": failing}, [completion(2), completion(1, status=200)])
    assert not changes.disabled
    assert changes.health["sub_1"].failures == 1


def test_a_subscription_that_the_store_does_not_know_is_left_alone():
    changes = judge_subscriptions({}, [completion(disable="gone")])
    assert (changes.health, changes.disabled, changes.warned) == ({}, {}, frozenset())


def test_a_success_of_a_healthy_subscription_changes_nothing():
    assert judge_subscriptions({"sub_1": Health()}, [completion(status=200)]).health == {}


def test_a_pause_is_that_of_the_subscription_whose_recipient_asked_for_it():
    paused = completion(1, status=429, key="sub_2", pause_until=hours(2))
    assert list(pauses([completion(1), paused])) == [("sub_2", hours(2))]


def test_a_late_failure_does_not_move_the_last_one_back():
    health = Health(failing_since=NOW, failures=2, last_failure_at=hours(5))
    after = after_completion(health, completion(3))
    assert after == attrs.evolve(health, failures=3)
