"""How much is tested: what is usual, unless the environment asks for something else."""

from __future__ import annotations

import os
from itertools import product


def messages_of(usual: int) -> int:
    """How many messages a run commits at least; or as `THORN_TEST_KILLS_MESSAGES` asks for."""
    return int(os.environ.get("THORN_TEST_KILLS_MESSAGES", usual))


def combinations_of(*usual: tuple[str, str]) -> list[tuple[str, str]]:
    """Brokers and databases that are tested together; `THORN_TEST_KILLS=all` asks for each pair."""
    if os.environ.get("THORN_TEST_KILLS") == "all":
        return [*product(("rabbitmq", "redis"), ("postgresql", "mariadb"))]
    return [*usual]
