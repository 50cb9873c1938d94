"""The migration of the SQL store's tables: Django runs the core's DDL."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

from thorn_core.ports.tables import Table
from thorn_core.stores.sql.schema import PREFIX, SUBSCRIPTIONS, TABLES
from thorn_core.stores.sql.wording import Wording


class CreateTables(Operation):
    """Creates the tables, except the subscriptions' if the project has its own model."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Do nothing: the migration contains the models separately."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *_: Any
    ) -> None:
        """Create the tables."""
        if _allowed(app_label, schema_editor):
            for statement in wording_of(schema_editor.connection.vendor).ddl(_own_tables()):
                schema_editor.execute(statement, None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *_: Any
    ) -> None:
        """Drop the tables."""
        if _allowed(app_label, schema_editor):
            wording = wording_of(schema_editor.connection.vendor)
            for table in reversed(_own_tables()):
                schema_editor.execute(f"DROP TABLE {wording.table(table.name)}", None)

    def describe(self) -> str:
        """Return the operation's description for `manage.py migrate --plan`."""
        return "Create Thorn's tables"


def wording_of(vendor: str, subscriptions: str | None = None) -> Wording:
    """Return the SQL dialect of one of Django's databases.

    Args:
        vendor: The database's name in Django and in the SQL store.
        subscriptions: The project's own table of subscriptions, if any.
    """
    names = {} if subscriptions is None else {SUBSCRIPTIONS.name: subscriptions}
    return Wording(vendor, "%s", PREFIX, "", names=names)


def _own_tables() -> list[Table]:
    swapped = apps.get_model("thorn_django", "Subscription")._meta.swapped
    return [table for table in TABLES if not (swapped and table is SUBSCRIPTIONS)]


def _allowed(app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> bool:
    return router.allow_migrate(schema_editor.connection.alias, app_label)
