"""The project of the tests with users, sessions, and the REST resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import magazine_project

from thorn_core import make_default_app_by

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
]
PROJECT = {
    "ALLOWED_HOSTS": ["*"],
    "MIDDLEWARE": MIDDLEWARE,
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "STATIC_URL": "/static/",
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                ]
            },
        }
    ],
}


def users() -> dict[str, Any]:
    """Ada and Bob, and one of the staff who may change subscriptions."""
    from django.contrib.auth.models import Permission, User
    from django.contrib.contenttypes.models import ContentType

    from thorn_django.models import Subscription

    made = {name: User.objects.create_user(name) for name in ("ada", "bob")}
    staff = made["staff"] = User.objects.create_user("staff", is_staff=True)
    # An empty database has none.
    may_change, _ = Permission.objects.get_or_create(
        codename="change_subscription",
        content_type=ContentType.objects.get_for_model(Subscription),
    )
    staff.user_permissions.add(may_change)
    return made


@contextmanager
def in_a_project(urls: str, **settings: Any) -> Iterator[dict[str, Any]]:
    """The project with these URLs and settings, on an empty database; gives its users."""
    from django.db import connections
    from django.test import override_settings

    from thorn_django import app

    magazine_project.make_database("default")
    magazine_project.clear_database("default")
    make_default_app_by(app.make_app)
    try:
        with override_settings(ROOT_URLCONF=urls, **{**PROJECT, **settings}):
            yield users()
    finally:
        make_default_app_by(None)
        app.setting_changed(setting="THORN_STORE")
        connections.close_all()
