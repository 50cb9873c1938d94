"""`manage.py thorn_purge`: remove what is old."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Remove what is old."""

    carried = "purge"
