"""How much is tested: a little of everything, or much in `nox -s campaign`."""

from __future__ import annotations

import os

import pytest

CAMPAIGN = os.environ.get("THORN_CAMPAIGN", "")
# Tests that only a campaign runs, and those that it runs at another size.
campaign = pytest.mark.campaign
scaled = pytest.mark.scaled


def size(usual: int, *, short: int, long: int) -> int:
    """How many of something: usually, in a short campaign, in a long one."""
    return {"": usual, "short": short, "long": long}[CAMPAIGN]
