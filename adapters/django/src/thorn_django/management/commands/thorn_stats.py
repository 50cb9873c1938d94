"""`manage.py thorn_stats`: show queue sizes, error rates and latencies."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Show queue sizes, error rates and latencies."""

    carried = "stats"
