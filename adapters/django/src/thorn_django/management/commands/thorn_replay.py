"""`manage.py thorn_replay`: retry failed and cancelled deliveries."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Retry failed and cancelled deliveries."""

    carried = "replay"
