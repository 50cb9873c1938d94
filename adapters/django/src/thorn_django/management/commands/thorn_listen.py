"""`manage.py thorn_listen`: receive webhooks on this machine, verify and show them."""

from __future__ import annotations

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Receive webhooks on this machine, verify and show them."""

    carried = "listen"
