"""Settings; environment variables configure the machine.

| variable           | meaning                                                                   |
| ------------------ | ------------------------------------------------------------------------- |
| `BLOG_DEBUG`       | `1` on your own machine                                                   |
| `BLOG_SECRET_KEY`  | Django's secret key; required without `BLOG_DEBUG`                        |
| `BLOG_HOSTS`       | Host names, separated by commas                                           |
| `BLOG_URL`         | The public URL of the blog, for links in events                           |
| `BLOG_DATABASE`    | `sqlite:///blog.db`, `postgresql://user@host/name`, `mysql://…`           |
| `BLOG_SUBSCRIBERS` | Static subscribers, as JSON: pattern to URL, list, mapping or dotted path |
| `BLOG_DESKS`       | Recipients of the articles in a category, as JSON: category name to URL   |
"""

import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = os.environ.get("BLOG_DEBUG") == "1"
SECRET_KEY = "only for development" if DEBUG else os.environ["BLOG_SECRET_KEY"]
ALLOWED_HOSTS = [host for host in os.environ.get("BLOG_HOSTS", "").split(",") if host]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "thorn_django",
    "blog",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "blog_project.urls"
WSGI_APPLICATION = "blog_project.wsgi.application"
TEMPLATES = [
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
]
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def database(url: str) -> dict[str, object]:
    """Convert a database URL to Django's settings."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(BASE_DIR / parts.path.removeprefix("/")),
            # Several processes write: take the write lock before reading anything.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL;",
                "timeout": 20,
            },
        }
    return {
        "ENGINE": f"django.db.backends.{parts.scheme}",
        "NAME": parts.path.removeprefix("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


DATABASES = {
    "default": {
        **database(os.environ.get("BLOG_DATABASE", "sqlite:///blog.db")),
        # Each request is a transaction, which contains its changes and its events.
        "ATOMIC_REQUESTS": True,
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}

# Requests only store messages; `manage.py thorn_worker` delivers them.
THORN_DISPATCHER = "outbox"
THORN_BASE_URL = os.environ.get("BLOG_URL", "http://127.0.0.1:8000")
THORN_SUBSCRIBERS = json.loads(os.environ.get("BLOG_SUBSCRIBERS", "{}"))
BLOG_DESKS = json.loads(os.environ.get("BLOG_DESKS", "{}"))
if DEBUG:
    # Permit recipients on this machine during development.
    THORN_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    THORN_ALLOWED_PORTS = range(1024, 65536)
    THORN_POLL_INTERVAL = 0.2
