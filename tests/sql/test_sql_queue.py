"""The queue of the SQL store: who gets what, until when, and how it ends."""

from __future__ import annotations

import threading
from collections import Counter

import attrs
import pytest
from queueing import NOW, Queued, ended, later, message, subscription

from thorn_core.errors import StoreError
from thorn_core.keys import delivery_key, recipient_key
from thorn_core.stores.sql import recipients as recipients_module
from thorn_core.stores.sql.rows import CANCELLED, DELIVERED, FAILED, OPEN, micros
from thorn_core.values import DeliveryState

PENDING, USED_UP = DeliveryState.PENDING, DeliveryState.FAILED
ATTEMPTS = "SELECT count(*) FROM $attempts"
QUEUED = "SELECT count(*) FROM $queue"


@pytest.fixture
def queued(database) -> Queued:
    return Queued(database)


def ids(claims) -> list[str]:
    return [claim.delivery.id for claim in claims]


# -- claims


def test_a_claim_is_the_delivery_in_flight_with_its_message(queued):
    sent = message(1)
    (made,) = queued.deliver(sent, subscription(1))
    (claim,) = queued.claim()
    assert claim.delivery == attrs.evolve(made, state=DeliveryState.IN_FLIGHT)
    assert (claim.message, claim.subscription, claim.token) == (sent, None, "one")


def test_only_what_is_due_is_claimed(queued):
    queued.deliver(message(1, at=later(10)), subscription(1))
    assert not queued.claim(later(9.999))
    assert len(queued.claim(later(10))) == 1
    assert not queued.claim(later(10), limit=0)


def test_a_lease_is_nobody_elses_until_it_ends(queued):
    queued.deliver(message(1), subscription(1))
    (first,) = queued.claim()
    assert not queued.claim(later(59), token="two")
    assert queued.claim(later(60), token="two")[0].delivery == first.delivery
    assert not queued.claim(NOW, token="behind")
    assert not queued.claim(later(119), token="three")


def test_a_lease_that_is_over_is_found_though_more_was_claimed_later(queued):
    queued.deliver(message(1), subscription(1))
    (dead,) = queued.claim()
    for number in (2, 3):
        queued.deliver(message(number, at=later(50)), subscription(1))
        assert len(queued.claim(later(50), token=f"t{number}")) == 1
    assert ids(queued.claim(later(60), token="four")) == ids([dead])


def test_recipients_take_turns(queued):
    for number in range(20):
        queued.deliver(message(number), subscription(1))
    queued.deliver(message(99), subscription(2))
    found = Counter(claim.delivery.subscription_id for claim in queued.claim(limit=10))
    assert found == {"sub_1": 9, "sub_2": 1}


def test_whoever_was_served_goes_behind_those_that_wait(queued):
    for number in range(4):
        queued.deliver(message(number), *(subscription(n) for n in range(4)))
    found = [queued.claim(later(n + 1), limit=1)[0].delivery.subscription_id for n in range(8)]
    assert Counter(found) == dict.fromkeys(found, 2)
    assert found[:4] == found[4:]


def test_the_oldest_of_a_recipient_comes_first(queued):
    for number in (3, 1, 2):
        queued.deliver(message(number, at=later(-10 + number)), subscription(1))
    found = [claim.message for claim in queued.claim(limit=2)]
    assert found == [message(1, at=later(-9)), message(2, at=later(-8))]


def test_a_recipient_gets_no_more_at_once_than_it_may(queued):
    for number in range(5):
        queued.deliver(message(number), subscription(1), subscription(2))
    claimed = queued.claim(per_recipient=3, busy={"sub_1": 2, "sub_2": 9})
    assert [claim.delivery.subscription_id for claim in claimed] == ["sub_1"]
    assert len(queued.claim(per_recipient=4)) == 8
    assert len(queued.claim()) == 1


def test_very_many_that_are_full_get_nothing(queued):
    queued.deliver(message(1), *(subscription(n) for n in range(600)), subscription(999))
    busy = {f"sub_{n}": 1 for n in range(600)}
    found = []
    for _ in range(3):
        found += queued.claim(per_recipient=1, busy=busy)
    assert [claim.delivery.subscription_id for claim in found] == ["sub_999"]


def test_deliveries_are_claimed_by_message(queued):
    for number in range(3):
        queued.deliver(message(number), subscription(1), subscription(2))
    named = [message(1).id, message(1).id, "msg_none", *(message(n).id for n in range(50, 200))]
    claimed = queued.claim(message_ids=named, per_recipient=1)
    assert {claim.message.id for claim in claimed} == {message(1).id}
    assert len(claimed) == 2
    assert not queued.claim(message_ids=named)
    assert len(queued.claim()) == 4


def test_what_is_claimed_by_message_is_found_again_when_its_lease_is_over(queued):
    queued.deliver(message(1), subscription(1))
    assert len(queued.claim(message_ids=[message(1).id])) == 1
    assert not queued.claim(later(1))
    assert len(queued.claim(later(60))) == 1


def test_who_is_held_up_hides_nobody_from_a_claim_by_message(queued):
    everybody = [subscription(n) for n in range(30)]
    queued.deliver(message(1), *everybody)
    with_pause = queued.claim(limit=10)
    queued.record(*(ended(c, PENDING, due_at=later(1), pause_until=later(99)) for c in with_pause))
    full = queued.claim(later(2), limit=10, token="two")
    queued.database.run(lambda s: queued.queue.release(s, full))
    busy = {claim.delivery.subscription_id: 1 for claim in full}
    left = queued.claim(later(2), limit=10, busy=busy, per_recipient=1, message_ids=[message(1).id])
    assert len(left) == 10
    assert not {*ids(left)} & {*ids(with_pause), *ids(full)}


def test_two_claimers_at_once_never_lease_the_same(queued):
    for number in range(60):
        queued.deliver(message(number), *(subscription(n) for n in range(7)))
    claimed: list[list[str]] = [[], []]
    start = threading.Barrier(2)

    def run(index: int) -> None:
        mine = Queued(queued.database)
        start.wait()
        while got := mine.claim(limit=7, token=f"t{index}"):
            claimed[index] += ids(got)

    _together(run)
    assert len(claimed[0]) + len(claimed[1]) == 420
    assert len({*claimed[0], *claimed[1]}) == 420


def test_two_claimers_by_turn_and_by_message_never_lease_the_same(queued):
    for number in range(40):
        queued.deliver(message(number), *(subscription(n) for n in range(5)))
    claimed: list[list[str]] = [[], []]
    start = threading.Barrier(2)

    def run(index: int) -> None:
        mine = Queued(queued.database)
        start.wait()
        for number in reversed(range(40)):
            named = [message(number).id] if index else None
            claimed[index] += ids(mine.claim(limit=5, token=f"t{index}", message_ids=named))

    _together(run)
    assert len({*claimed[0], *claimed[1]}) == len(claimed[0]) + len(claimed[1]) == 200


def _together(run) -> None:
    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- keep, give back


def test_a_renewed_lease_lasts_longer(queued):
    queued.deliver(message(1), subscription(1))
    claims = queued.claim()
    queued.database.run(lambda s: queued.queue.renew(s, claims, micros(later(100))))
    assert not queued.claim(later(99), token="two")
    (again,) = queued.claim(later(100), token="two")
    queued.database.run(lambda s: queued.queue.renew(s, claims, micros(later(1000))))
    assert ids(queued.claim(later(160), token="three")) == ids([again])


def test_a_released_claim_is_pending_as_before(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    claims = queued.claim()
    queued.database.run(lambda s: queued.queue.release(s, claims))
    (again,) = queued.claim(later(1), token="two")
    assert again.delivery == attrs.evolve(made, state=DeliveryState.IN_FLIGHT)
    queued.database.run(lambda s: queued.queue.release(s, claims))
    assert not queued.claim(later(2), token="three")


# -- end


def test_a_delivered_one_leaves_the_queue_with_its_attempt(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    queued.record(ended(claim, at=later(1)))
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], row["finished_at"]) == (DELIVERED, 1, micros(later(1)))
    assert (queued.value(ATTEMPTS), queued.value(QUEUED)) == (1, 0)


def test_a_retry_waits_until_it_is_due(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    queued.record(ended(claim, PENDING, due_at=later(5), reason="500\0"))
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], row["reason"]) == (OPEN, 1, "500�")
    assert not queued.claim(later(4.999))
    (again,) = queued.claim(later(5), token="two")
    assert (again.delivery.attempt_count, again.delivery.attempts_before) == (1, 0)


def test_an_end_without_an_attempt_counts_none(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    queued.record(ended(claim, USED_UP, attempted=False, reason="why"))
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], row["reason"]) == (FAILED, 0, "why")
    assert queued.value(ATTEMPTS) == 0


def test_a_late_attempt_is_kept_and_counted_and_changes_nothing_else(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (first,) = queued.claim()
    (second,) = queued.claim(later(60), token="two")
    late = ended(first, USED_UP, at=later(61), pause_until=later(1000))
    queued.record(late)
    queued.record(late)
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], queued.value(ATTEMPTS)) == (OPEN, 1, 1)
    queued.record(ended(second, at=later(62)), ended(first, at=later(63)))
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], queued.value(ATTEMPTS)) == (DELIVERED, 3, 3)


def test_what_was_recorded_before_is_not_counted_again(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    for _ in range(2):
        queued.record(ended(claim, at=later(1)))
    row = queued.row(made)
    assert row is not None
    assert (row["attempts"], queued.value(ATTEMPTS)) == (1, 1)


def test_a_claim_that_is_recorded_twice_at_once_ends_once(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    retry = ended(claim, PENDING, at=later(1), due_at=later(5))
    queued.record(retry, ended(claim, at=later(2)), retry)
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], queued.value(ATTEMPTS)) == (OPEN, 2, 2)
    (again,) = queued.claim(later(5), token="two")
    finished = ended(again, at=later(6))
    queued.record(finished, ended(again, PENDING, at=later(7), due_at=later(9)), finished)
    row = queued.row(made)
    assert row is not None
    assert (row["state"], row["attempts"], queued.value(ATTEMPTS)) == (DELIVERED, 4, 4)
    assert queued.value(QUEUED) == 0


def test_nothing_is_kept_of_a_delivery_that_is_gone(queued):
    (made,) = queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    for table in ("queue", "deliveries"):
        queued.database.run(lambda s, table=table: s.change(f"DELETE FROM ${table}"))
    queued.record(ended(claim))
    assert (queued.row(made), queued.value(ATTEMPTS)) == (None, 0)


def test_many_end_at_once_each_in_its_own_way(queued):
    for number in range(300):
        queued.deliver(message(number), subscription(number % 3))
    claims = queued.claim(limit=300, per_recipient=300)
    assert len(claims) == 300
    states = (DeliveryState.DELIVERED, PENDING, USED_UP)
    queued.record(
        *(ended(c, states[n % 3], due_at=later(n), reason=str(n)) for n, c in enumerate(claims))
    )
    for number, claim in enumerate(claims):
        row = queued.row(claim.delivery)
        assert row is not None
        assert (row["state"], row["reason"]) == ((DELIVERED, OPEN, FAILED)[number % 3], str(number))
    assert queued.value(QUEUED) == 100


def test_recording_and_claiming_at_once_never_meet_in_a_deadlock(queued):
    for number in range(60):
        queued.deliver(message(number), *(subscription(n) for n in range(6)))
    failures: list[object] = []
    classify = queued.database.executor.classify
    queued.database.executor.classify = lambda error: failures.append(error) or classify(error)
    start = threading.Barrier(2)

    def run(index: int) -> None:
        mine = Queued(queued.database)
        start.wait()
        for turn in range(12):
            now = later(turn)
            got = mine.claim(now, limit=30, token=f"t{index}", per_recipient=30)
            got = got if index else got[::-1]
            mine.database.run(lambda s, got=got: mine.queue.renew(s, got, micros(later(99))))
            pause = {"due_at": now, "pause_until": now}
            mine.record(*(ended(c, PENDING, at=now, **pause) for c in got[::2]))
            mine.database.run(lambda s, got=got: mine.queue.release(s, got[1::2]))

    _together(run)
    assert failures == []


# -- recipients


def test_a_recipient_that_asks_for_it_is_left_alone(queued):
    queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    queued.record(ended(claim, PENDING, due_at=later(5), pause_until=later(30)))
    queued.deliver(message(2), subscription(1), subscription(2))
    found = queued.claim(later(10), token="two")
    assert [claim.delivery.subscription_id for claim in found] == ["sub_2"]
    assert not queued.claim(later(29), message_ids=[message(2).id])
    assert len(queued.claim(later(30), token="two")) == 2


def test_of_two_requests_to_wait_the_later_holds(queued):
    for number in (1, 2):
        queued.deliver(message(number), subscription(1))
    ends = (later(60), later(20))
    claims = zip(queued.claim(), ends, strict=True)
    queued.record(*(ended(c, PENDING, due_at=later(1), pause_until=end) for c, end in claims))
    assert not queued.claim(later(59))
    assert len(queued.claim(later(60))) == 2


def test_a_changed_url_is_asked_at_once(queued):
    before = subscription(1)
    after = attrs.evolve(before, url="https://elsewhere.example.com/")
    queued.deliver(message(1), before)
    (claim,) = queued.claim()
    queued.record(ended(claim, PENDING, due_at=later(5), pause_until=later(30)))
    queued.database.run(lambda s: queued.recipients.changed(s, before, after))
    assert not queued.claim(later(4))
    assert len(queued.claim(later(5))) == 1
    assert queued.value("SELECT origin FROM $recipients") == "https://elsewhere.example.com"


def test_what_a_paused_subscription_has_waits_until_it_is_resumed(queued):
    mine, other = subscription(1), subscription(2)
    queued.deliver(message(1), mine)
    (claim,) = queued.claim(limit=1)
    assert queued.database.run(lambda s: queued.recipients.pause(s, mine.id, mine))
    queued.record(ended(claim, PENDING, due_at=later(1)))
    queued.deliver(message(2), mine, other)
    assert [c.delivery.subscription_id for c in queued.claim(later(9))] == ["sub_2"]
    assert not queued.claim(later(9), message_ids=[message(1).id, message(2).id])
    assert queued.database.run(
        lambda s: queued.recipients.resume(s, mine.id, None, micros(later(10)))
    )
    assert len(queued.claim(later(10), token="two")) == 2


def test_resuming_lifts_no_other_wait(queued):
    queued.deliver(message(1), subscription(1))
    (claim,) = queued.claim()
    queued.record(ended(claim, PENDING, due_at=later(1), pause_until=later(30)))
    queued.database.run(lambda s: queued.recipients.pause(s, "sub_1", None))
    queued.database.run(lambda s: queued.recipients.resume(s, "sub_1", None, micros(later(2))))
    assert not queued.claim(later(29))
    assert len(queued.claim(later(30))) == 1


def test_a_stored_subscription_is_paused_before_anything_is_sent_to_it(queued):
    assert not queued.database.run(lambda s: queued.recipients.pause(s, "sub_1", None))
    queued.database.run(lambda s: queued.recipients.pause(s, "sub_1", subscription(1)))
    queued.deliver(message(1), subscription(1))
    assert not queued.claim(later(9))


def test_a_subscription_whose_key_another_has_is_refused_and_logged(queued, monkeypatch, caplog):
    queued.deliver(message(1), subscription(1))
    queued.claim()
    key = recipient_key("sub_1")
    monkeypatch.setattr(recipients_module, "recipient_key", lambda subscription_id: key)
    both = [subscription(2), subscription(1)]
    for some in (Queued(queued.database), queued):
        known = queued.database.run(lambda s, some=some: some.recipients.known(s, both))
        assert known == {"sub_1": key}
        assert "sub_2 has the recipient key of subscription sub_1" in caplog.text
        caplog.clear()
    assert not queued.database.run(lambda s: queued.recipients.pause(s, "sub_2", both[0]))


def test_a_recipient_that_was_rolled_back_is_made_again(queued):
    def fail(statements):
        queued.recipients.known(statements, [subscription(1)])
        queued.recipients.known(statements, [subscription(1)])
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        queued.database.run(fail)
    queued.deliver(message(1), subscription(1))
    assert len(queued.claim()) == 1


def test_a_delivery_to_a_recipient_without_a_row_is_refused(queued):
    with pytest.raises(StoreError, match="no rows of the recipients"):
        queued.database.run(lambda s: queued.queue.add(s, [(bytes(24), micros(NOW))]))
    assert queued.value(QUEUED) == 0


def test_what_comes_next_is_foreseen(queued):
    def foreseen():
        return queued.database.read(queued.queue.next_due)

    assert foreseen() is None
    queued.deliver(message(1, at=later(10)), subscription(1))
    assert foreseen() == micros(later(10))
    (claim,) = queued.claim(later(10))
    assert foreseen() == micros(later(70))
    queued.record(ended(claim, PENDING, due_at=later(20)))
    assert foreseen() == micros(later(20))


# -- cancel


def test_what_nobody_has_leased_is_cancelled(queued):
    (leased,) = queued.deliver(message(1), subscription(1))
    queued.claim()
    made = [queued.deliver(message(n), subscription(1))[0] for n in (2, 3)]
    now = micros(later(1))
    waiting = queued.database.read(lambda s: queued.queue.waiting(s, "sub_1", now, 100))
    assert waiting == [delivery_key(each.id) for each in made]
    every = [*waiting, delivery_key(leased.id), bytes(24)]
    gone = queued.database.run(lambda s: queued.queue.cancel(s, every, now, "unsubscribed"))
    assert gone == waiting
    row = queued.row(made[0])
    assert row is not None
    assert (row["state"], row["finished_at"], row["reason"]) == (CANCELLED, now, "unsubscribed")
    row = queued.row(leased)
    assert row is not None
    assert row["state"] == OPEN
    assert queued.value(QUEUED) == 1
    assert not queued.database.run(lambda s: queued.queue.cancel(s, [], now, "nothing"))
