"""The verdict: what a run has lost, invented or done twice without a reason."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scale import CAMPAIGN

from kills.kit import Kit
from kills.programs import CHUNK, CONCURRENCY
from kills.run import RECIPIENTS, Arrival, Outcome, Run
from thorn_core import DeliveryState

# What a worker may hold at once: requests under way, slow ones beside, and four times as many as it
# may claim that it hasn't finished yet.
HELD = 3 * CONCURRENCY + 5 * (CONCURRENCY + CHUNK)


def check(kit: Kit, directory: Path, *, messages: int) -> None:
    """Run programs and kill them; fails unless what arrived is just what was committed.

    Args:
        kit: Of the programs.
        directory: For their files.
        messages: How many at least.
    """
    chosen = random.SystemRandom().getrandbits(32) if CAMPAIGN else 1
    seed = int(os.environ.get("THORN_TEST_SEED") or chosen)
    print(f"again by: THORN_TEST_SEED={seed}")
    rounds = 4 if CAMPAIGN else 2
    outcome = Run(kit, directory, seed=seed, messages=messages, rounds=rounds).go()
    print(outcome.faults, len(outcome.truth), "messages,", len(outcome.arrivals), "requests")
    faults = faults_of(outcome)
    print(*faults[:20], sep="\n")
    assert len(outcome.truth) >= messages
    assert min(outcome.faults.values()) >= rounds
    assert not faults, f"{len(faults)} faults, printed above"


def faults_of(outcome: Outcome) -> list[str]:
    """What is wrong with a run; nothing, if all is well."""
    return [
        *_lost(outcome),
        *_invented(outcome),
        *_unfinished(outcome),
        *_twice(outcome),
        *_miscounted(outcome),
    ]


def recipients_of(event: str) -> list[int]:
    """The recipients that an event has."""
    return list(RECIPIENTS.values()) if event == "fault.all" else [RECIPIENTS[event]]


def _expected(outcome: Outcome) -> set[tuple[str, str, int]]:
    return {
        (message_id, key, recipient)
        for message_id, (key, event) in outcome.truth.items()
        if event.startswith("fault.")
        for recipient in recipients_of(event)
    }


def _accepted(outcome: Outcome) -> Counter[tuple[str, str, int]]:
    return Counter((a.message_id, a.key, a.recipient) for a in outcome.arrivals if a.accepted)


def _lost(outcome: Outcome) -> Iterator[str]:
    for lost in sorted(_expected(outcome) - _accepted(outcome).keys()):
        yield f"committed, and never arrived: {lost}"


def _invented(outcome: Outcome) -> Iterator[str]:
    expected = _expected(outcome)
    for arrival in outcome.arrivals:
        if (arrival.message_id, arrival.key, arrival.recipient) not in expected:
            yield f"arrived, and never committed, or not for this recipient: {arrival}"
    for delivery in outcome.deliveries:
        if delivery.message_id not in outcome.truth:
            yield f"a delivery of a message that was never committed: {delivery}"


def _unfinished(outcome: Outcome) -> Iterator[str]:
    if outcome.unrouted:
        yield f"{outcome.unrouted} messages aren't routed"
    for delivery in outcome.deliveries:
        if delivery.state is not DeliveryState.DELIVERED:
            yield f"not delivered: {delivery}"
    if len(outcome.deliveries) != len(_expected(outcome)):
        yield f"{len(outcome.deliveries)} deliveries instead of {len(_expected(outcome))}"
    if any(outcome.exits):
        yield f"workers that were told to stop ended with {outcome.exits}"


def _twice(outcome: Outcome) -> Iterator[str]:
    """Of a delivery that was accepted more than once, all but one by workers that were killed.

    Unless the attempt is on record as one that failed: it took too long.
    """
    accepted: dict[str, list[Arrival]] = {}
    for arrival in outcome.arrivals:
        if arrival.accepted:
            accepted.setdefault(arrival.delivery_id, []).append(arrival)
    held: Counter[str] = Counter()
    for delivery_id, arrivals in accepted.items():
        if len(arrivals) > 1:
            of_killed = [a.worker for a in arrivals if a.worker in outcome.killed]
            held.update(of_killed)
            too_late = sum(a.status is None for a in outcome.attempts[delivery_id])
            if len(arrivals) - 1 > len(of_killed) + too_late:
                yield f"accepted more than once without a reason: {arrivals}"
    for worker, number in held.items():
        if number > HELD:
            yield f"{worker} held {number} deliveries when it was killed, instead of {HELD}"


def _miscounted(outcome: Outcome) -> Iterator[str]:
    """Attempts of workers that were not killed are on record, each once, as they went."""
    arrived: dict[str, list[Arrival]] = {}
    for arrival in outcome.arrivals:
        arrived.setdefault(arrival.delivery_id, []).append(arrival)
    for delivery in outcome.deliveries:
        attempts = outcome.attempts.get(delivery.id, [])
        arrivals = arrived.get(delivery.id, [])
        alive = [a for a in arrivals if a.worker not in outcome.killed]
        if not len(alive) <= len(attempts) <= len(arrivals):
            yield f"{delivery} has {attempts}, and these arrived: {arrivals}"
        if delivery.attempt_count != len(attempts):
            yield f"{delivery} counts {len(attempts)} attempts"
        if sum(attempt.ok for attempt in attempts) < 1:
            yield f"{delivery} is delivered without an attempt that says so: {attempts}"
