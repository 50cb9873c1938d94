"""`manage.py thorn_worker`: deliver messages from the store."""

from __future__ import annotations

from typing import Any

from django.db import close_old_connections

from thorn_django.management.command import ThornCommand


class Command(ThornCommand):
    """Deliver messages from the store."""

    carried = "worker"

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker."""
        # Close connections that checks opened; a worker may run for months without using them.
        close_old_connections()
        super().handle(*args, **options)
