"""`manage.py thorn_stats`: show what the store holds, and how attempts went lately."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Show what the store holds, and how attempts went lately."""

    carried = "stats"
