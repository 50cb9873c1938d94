"""`manage.py thorn_purge`: delete old deliveries and their messages."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Delete old deliveries and their messages."""

    carried = "purge"
