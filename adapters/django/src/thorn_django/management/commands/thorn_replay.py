"""`manage.py thorn_replay`: deliver once more what failed."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Deliver once more what failed."""

    carried = "replay"
