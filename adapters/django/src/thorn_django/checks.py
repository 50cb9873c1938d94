"""System checks: `manage.py check` reports problems of Thorn's settings.

==========  =========================================================================
thorn.E001  an unknown setting THORN_…
thorn.E002  a setting has an invalid value
thorn.E003  THORN_STORE or THORN_DATABASES names no database
thorn.E004  THORN_SUBSCRIBER_MODEL isn't a subscription model
thorn.E005  the settings don't make a valid app
thorn.E006  THORN_DRF_PERMISSION_CLASSES has an invalid entry
thorn.W001  transactions of a SQLite database fail during other writes
thorn.W002  tables are missing or of an older version (with --database)
thorn.W003  THORN_RECIPIENT_VALIDATORS, or an event's, allow internal addresses
thorn.W004  an exception allows the metadata service of a cloud
thorn.W005  an exception allows public addresses, which need none
thorn.W006  a static subscriber's URL is refused
thorn.W007  THORN_SIGNATURES is empty
thorn.W008  an event's dispatcher doesn't exist
==========  =========================================================================
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from django.apps import AppConfig
from django.conf import settings as project
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from thorn_core import Settings, ThornError
from thorn_django import app

PERMISSIONS = "THORN_DRF_PERMISSION_CLASSES"
KNOWN = tuple(f"{app.PREFIX}{field.name.upper()}" for field in attrs.fields(Settings))
# The checks for the core's findings, by name.
FINDINGS = {
    "internal-addresses-open": "thorn.W003",
    "metadata-open": "thorn.W004",
    "useless-exception": "thorn.W005",
    "subscriber-refused": "thorn.W006",
    "unsigned": "thorn.W007",
    "unknown-dispatcher": "thorn.W008",
}
# Their values are valid only in combination.
TOGETHER = (
    {"THORN_EVENT_TIMEOUT", "THORN_LEASE"},
    {"THORN_RETRY_DELAY", "THORN_RETRY_MAX"},
    {"THORN_ALLOWED_PORTS", "THORN_RECIPIENT_VALIDATORS"},
)


def register_checks() -> None:
    """Register the checks; those of tables run only with a database."""
    register(check_settings, Tags.models)
    register(check_tables, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """Check the settings, without a database."""
    found = [*_settings(), *_databases(), *_subscriber_model(), *_permission_classes()]
    if not any(isinstance(message, Error) for message in found):
        found += _whole()
    return found


def _settings() -> Iterator[CheckMessage]:
    names = [name for name in app.setting_names() if name not in app.OWN]
    for name in names:
        if name not in KNOWN:
            yield Error(f"{name} is not a Thorn setting.", hint=_nearest(name), id="thorn.E001")
    alone = [{name} for name in KNOWN if not any(name in group for group in TOGETHER)]
    for group in (*alone, *TOGETHER):
        try:
            app.settings_of({name: getattr(project, name) for name in names if name in group})
        except ThornError as error:
            where = ", ".join(name for name in names if name in group)
            yield Error(f"{where}: {error}", id="thorn.E002")


def _nearest(name: str) -> str:
    try:
        Settings.from_mapping({name: None})
    except ThornError as error:
        renamed = re.search(r"did you mean (\w+)\?", str(error))
        if renamed is not None:
            return f"Did you mean {app.PREFIX}{renamed[1].upper()}?"
    known = {known.removeprefix(app.PREFIX): known for known in (*KNOWN, *app.OWN)}
    near = difflib.get_close_matches(name.removeprefix(app.PREFIX), known, 1)
    if near:
        return f"Did you mean {known[near[0]]}?"
    return f"Known settings: {', '.join(sorted([*KNOWN, *app.OWN]))}."


def _databases() -> Iterator[CheckMessage]:
    try:
        aliases = _aliases()
    except ThornError as error:
        yield Error(str(error), id="thorn.E003")
        return
    for alias in aliases:
        if alias not in connections:
            near = difflib.get_close_matches(alias, list(connections), 1)
            known = f"Known databases: {', '.join(sorted(connections))}."
            hint = f"Did you mean {near[0]!r}?" if near else known
            yield Error(
                f"Thorn's settings name the database {alias!r}, which is not in DATABASES.",
                hint=hint,
                id="thorn.E003",
            )
            continue
        yield from _sqlite(alias)


def _sqlite(alias: str) -> Iterator[CheckMessage]:
    connection = connections[alias]
    if connection.vendor != "sqlite":
        return
    mode = str(connection.settings_dict["OPTIONS"].get("transaction_mode") or "").upper()
    if mode not in ("IMMEDIATE", "EXCLUSIVE"):
        yield checks.Warning(
            f"Transactions in the SQLite database {alias!r} start as read transactions. If a"
            f" worker writes in the meantime, sending an event fails with 'database is locked'.",
            hint=(
                f"Set DATABASES[{alias!r}]['OPTIONS'] = {{'transaction_mode': 'IMMEDIATE',"
                " 'init_command': 'PRAGMA journal_mode=WAL;'}."
            ),
            id="thorn.W001",
        )


def _aliases() -> list[str]:
    """Return the databases that Thorn uses, the store's first; none if its store isn't Django's."""
    url = getattr(project, app.STORE, "django://")
    others = app.databases()
    if not isinstance(url, str) or url.partition(":")[0] != "django":
        return []
    return list(dict.fromkeys([app.alias_of(url), *others]))


def _subscriber_model() -> Iterator[CheckMessage]:
    from thorn_django.subscription_model import subscription_model

    try:
        subscription_model()
    except ThornError as error:
        yield Error(str(error), id="thorn.E004")


def _permission_classes() -> Iterator[CheckMessage]:
    named = getattr(project, PERMISSIONS, ())
    if not named:
        return
    if not isinstance(named, list | tuple):
        yield Error(f"{PERMISSIONS} is {named!r}; use a list of classes.", id="thorn.E006")
        return
    try:
        from thorn_django.rest_framework.permissions import permission
    except ImportError as error:
        yield Error(f"{PERMISSIONS} needs Django REST framework: {error}", id="thorn.E006")
        return
    for each in named:
        try:
            permission(each)
        except ThornError as error:
            yield Error(str(error), id="thorn.E006")


def _whole() -> Iterator[CheckMessage]:
    """Report problems that only a complete app shows: names of dispatchers, schemes, stores."""
    try:
        findings = app.check_app()
    except ThornError as error:
        yield Error(f"The settings are invalid: {error}", id="thorn.E005")
        return
    for finding in findings:
        message = finding.message
        if finding.setting is not None:
            message = f"{app.PREFIX}{finding.setting.upper()}: {message}"
        yield checks.Warning(message, hint=finding.hint, id=FINDINGS[finding.name])


def check_tables(
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **_: Any,
) -> list[CheckMessage]:
    """Check the tables in databases that the command may query.

    Missing tables are a warning: after an error, `manage.py migrate` wouldn't run.
    """
    try:
        aliases = [alias for alias in _aliases() if alias in (databases or ())]
    except ThornError:
        return []
    return [message for alias in aliases for message in _tables(alias, alias == _aliases()[0])]


def _tables(alias: str, of_the_store: bool) -> Iterator[CheckMessage]:  # noqa: FBT001
    from thorn_core.stores.sql.schema import TABLES
    from thorn_django.outboxes import NEEDED, database_of, what_is_wrong
    from thorn_django.subscription_model import subscription_model, table_of

    try:
        database = database_of(alias, table_of(subscription_model()))
        with contextlib.closing(database.executor):
            wrong = what_is_wrong(database, TABLES if of_the_store else NEEDED)
    except ThornError as error:
        wrong = str(error)
    if wrong is not None:
        yield checks.Warning(wrong, id="thorn.W002")
