"""The Django guide, followed to the letter."""

from __future__ import annotations

import pytest
from guide_reader import reader_in, steps_of

pytest.importorskip("django")


def test_the_guide_leads_to_a_verified_webhook(tmp_path):
    steps = steps_of("django.md", "8099")
    with reader_in(tmp_path, "thorn-core", "thorn-django") as reader:
        for step, text in steps:
            reader.follow(step, text)
    kinds = [step.split()[0] for step, _ in steps]
    assert (kinds[0], kinds[-1], len(reader.terminals)) == ("install", "the", 1)
