"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed

from thorn_core import make_default_app_by

# Before the models load: their events may contain Django's Q.
from thorn_django.model_events import conditions  # noqa: F401


class ThornConfig(AppConfig):
    """Thorn: webhooks."""

    name = "thorn_django"
    label = "thorn_django"
    verbose_name = "Webhooks"

    def ready(self) -> None:
        """Register the app, the system checks, and the receivers of Django's signals.

        The app and its connections are created at first use.
        """
        from thorn_django import app, checks, model_events, owners

        checks.register_checks()
        make_default_app_by(app.make_app)
        setting_changed.connect(app.setting_changed, dispatch_uid="thorn_django")
        app.release_test_databases()
        owners.follow_deletions()
        model_events.start()
