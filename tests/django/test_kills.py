"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import os
import random

from django.db import connections
from kills.django_kit import DjangoKit
from kills.run import Run
from kills.verdict import faults_of

# Fewer than the other store is tested with: the engine is the same.
MESSAGES = int(os.environ.get("THORN_TEST_KILLS_MESSAGES", "6000"))


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(server_alias, tmp_path):
    seed = int(os.environ.get("THORN_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"again by: THORN_TEST_SEED={seed}")
    connections[server_alias].close()
    run = Run(DjangoKit(server_alias), tmp_path, seed=seed, messages=MESSAGES)
    outcome = run.go()
    print(outcome.faults, len(outcome.truth), "messages,", len(outcome.arrivals), "requests")
    faults = faults_of(outcome)
    print(*faults[:20], sep="\n")
    assert len(outcome.truth) >= MESSAGES
    assert outcome.faults["worker killed"] > 3
    assert outcome.faults["writer killed"] > 1
    assert not faults, f"{len(faults)} faults, printed above"
