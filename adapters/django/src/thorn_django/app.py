"""The app, created from the project's settings at first use."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings as project
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.db.backends.base.creation import BaseDatabaseCreation

from thorn_core import ConfigurationError, Settings, Thorn
from thorn_core.checks import Finding, findings

if TYPE_CHECKING:
    from thorn_django.store import DjangoStore

PREFIX = "THORN_"
STORE = "THORN_STORE"
DATABASES = "THORN_DATABASES"
SUBSCRIBER_MODEL = "THORN_SUBSCRIBER_MODEL"
# Settings of Django's adapter in addition to those of every app.
OWN = (STORE, DATABASES)

MARK = "_thorn_releases"

_made: Thorn | None = None


def make_app() -> Thorn:
    """Create the default app from the project's settings `THORN_…`, at first use.

    Raises:
        ConfigurationError, InvalidNameError: A setting is invalid.
    """
    global _made
    _made = _new_app()
    return _made


def check_app() -> list[Finding]:
    """Create an app from the project's settings, and return warnings about it.

    Raises:
        ConfigurationError, InvalidNameError: The settings are invalid.
    """
    with _new_app() as made:
        return findings(made)


def _new_app() -> Thorn:
    return Thorn(
        store=getattr(project, STORE, "django://"),
        settings=settings_of({name: getattr(project, name) for name in setting_names()}),
    )


def setting_names() -> list[str]:
    """Return the names of the project's settings that begin with `THORN_`."""
    return sorted(name for name in dir(project) if name.startswith(PREFIX))


def setting_changed(*, setting: str, **_: Any) -> None:
    """Drop the app when a test overrides a setting; the next use creates a new one."""
    if setting.startswith(PREFIX) or setting == "DATABASES":
        _close_made()
    if setting in (SUBSCRIBER_MODEL, "AUTH_USER_MODEL"):
        from thorn_django.owners import follow_deletions

        follow_deletions()


def _close_made() -> None:
    global _made
    if _made is not None:
        made, _made = _made, None
        made.close()


def release_test_databases() -> None:
    """Close Thorn's connections before a test run drops its databases; calling it twice is safe.

    PostgreSQL can't drop a database with open connections.
    """
    destroy = BaseDatabaseCreation.destroy_test_db
    if hasattr(destroy, MARK):
        return

    @functools.wraps(destroy)
    def wrapped(self: BaseDatabaseCreation, *args: Any, **kwargs: Any) -> None:
        from thorn_django.store import close_stores

        _close_made()
        close_stores(self.connection.alias)
        destroy(self, *args, **kwargs)

    setattr(wrapped, MARK, True)
    BaseDatabaseCreation.destroy_test_db = wrapped  # type: ignore[method-assign]


# -- settings


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return Thorn's settings of a project; import the objects of dotted paths.

    Args:
        values: The values by name (`THORN_…`).

    Raises:
        ConfigurationError, InvalidNameError: A name is unknown, or a value is invalid or can't be
            imported.

    Example:
        >>> codecs = {"text/x": "thorn_core.codecs.encode_form"}
        >>> settings_of({"THORN_CODECS": codecs}).codecs["text/x"].__name__
        'encode_form'
    """
    return Settings.from_mapping({k: v for k, v in values.items() if k not in OWN}, dotted=True)


# -- the store


def store_of(url: Any) -> DjangoStore:
    """Return the store of a URL, `django://` or `django://alias`, and of the databases setting.

    Raises:
        ConfigurationError: The URL names no database, or Django isn't ready.
    """
    try:
        apps.check_models_ready()
        installed = apps.is_installed("thorn_django")
    except (AppRegistryNotReady, ImproperlyConfigured) as error:
        raise ConfigurationError(
            f"store={url!r} needs Django's app registry: {error} Create the app in"
            f" AppConfig.ready() or later, or let thorn_django.get_app() create it; standalone"
            f" scripts must call django.setup() first"
        ) from error
    if not installed:
        raise ConfigurationError(
            f"store={url!r} needs 'thorn_django' in INSTALLED_APPS; then run: manage.py migrate"
        )
    from thorn_django.store import DjangoStore

    return DjangoStore(alias_of(url), databases=databases())


def alias_of(url: Any) -> str:
    """Return the alias in a store's URL.

    Raises:
        ConfigurationError: The URL has another form.
    """
    parts = urlsplit(str(url))
    # The network location preserves the letters' case; a host name wouldn't.
    alias = parts.netloc or "default"
    if parts.scheme != "django" or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"store={url!r} is not a Django database URL; write django:// or django://alias"
        )
    return alias


def databases() -> list[str]:
    """Return the setting THORN_DATABASES.

    Raises:
        ConfigurationError: It isn't a list of aliases.
    """
    value = getattr(project, DATABASES, ())
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(alias, str) for alias in value
    ):
        raise ConfigurationError(f"{DATABASES} is {value!r}; use a list of database aliases")
    return list(value)
