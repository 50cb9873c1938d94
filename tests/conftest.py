"""What the tests share."""

from __future__ import annotations

import pytest

from thorn_core import events


@pytest.fixture(autouse=True)
def _declarations():
    """Events that a test declares for any app don't stay declared for the next one."""
    before = dict(events._kept)
    yield
    events._kept.clear()
    events._kept.update(before)
