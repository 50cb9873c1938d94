"""The admin in the tests' project, while those modules run whose tests are about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import magazine_project
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

APPS = [
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
# As strict as Django's own admin takes it.
POLICY = "default-src 'none'; " + "; ".join(
    f"{kind} 'self'" for kind in ("script-src", "style-src", "img-src", "form-action")
)


class StrictPolicy:
    """Lets a page load nothing but its own files, and run nothing that stands in it."""

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self._get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response


@contextmanager
def opened() -> Iterator[None]:
    """The admin is installed, and its tables are in the default database."""
    magazine_project.make_database("default")
    with override_settings(
        INSTALLED_APPS=[*settings.INSTALLED_APPS, *APPS],
        MIDDLEWARE=[
            "backoffice.StrictPolicy",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        ROOT_URLCONF="backoffice_urls",
        STATIC_URL="/static/",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ):
        call_command("migrate", database="default", verbosity=0, interactive=False)
        # So that a test's client sees what templates are given.
        setup_test_environment()
        try:
            yield
        finally:
            teardown_test_environment()
            clear()


def clear() -> None:
    """Forget who did what, and give users permissions to choose from again."""
    from django.contrib.auth.management import create_permissions

    with connections["default"].cursor() as cursor:
        for table in ("django_admin_log", "django_session"):
            cursor.execute(f"DELETE FROM {table}")
    for label in ("thorn_django", "magazine"):
        create_permissions(apps.get_app_config(label), verbosity=0, using="default")
