"""The pytest plugin: the fixture `thorn_messages`, which handles the transactions of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thorn_django.testing.capture import CapturedMessages, capture


@pytest.fixture
def thorn_messages() -> Iterator[CapturedMessages]:
    """Capture the messages that the default app sends during the test."""
    with capture() as messages:
        yield messages
