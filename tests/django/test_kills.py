"""Processes are killed and connections broken: nothing is lost, and nothing invented."""

from __future__ import annotations

import os

from django.db import connections
from kills.django_kit import DjangoKit
from kills.verdict import check

# Fewer than the other store is tested with: the engine is the same.
MESSAGES = int(os.environ.get("THORN_TEST_KILLS_MESSAGES", "6000"))


def test_what_is_committed_arrives_and_nothing_else_whoever_is_killed(server_alias, tmp_path):
    connections[server_alias].close()
    check(DjangoKit(server_alias), tmp_path, messages=MESSAGES)
