"""`manage.py thorn_replay`: retry failed deliveries."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Retry failed deliveries."""

    carried = "replay"
