"""The migration of the SQL store's tables: the core's DDL, run by Django."""

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
    """Create the tables; that of subscriptions unless the project has a model of its own."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Nothing: the models are beside it in the migration."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *_: Any
    ) -> None:
        """Create them."""
        if _allowed(app_label, schema_editor):
            for statement in wording_of(schema_editor.connection.vendor).ddl(_own_tables()):
                schema_editor.execute(statement, None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *_: Any
    ) -> None:
        """Drop them."""
        if _allowed(app_label, schema_editor):
            wording = wording_of(schema_editor.connection.vendor)
            for table in reversed(_own_tables()):
                schema_editor.execute(f"DROP TABLE {wording.table(table.name)}", None)

    def describe(self) -> str:
        """What it does, for `manage.py migrate --plan`."""
        return "Create Thorn's tables"


def wording_of(vendor: str, subscriptions: str | None = None) -> Wording:
    """How statements are worded for one of Django's databases.

    Args:
        vendor: As Django calls it, and the SQL store.
        subscriptions: The table of subscriptions, if the project has one of its own.
    """
    names = {} if subscriptions is None else {SUBSCRIPTIONS.name: subscriptions}
    return Wording(vendor, "%s", PREFIX, "", names=names)


def _own_tables() -> list[Table]:
    swapped = apps.get_model("thorn_django", "Subscription")._meta.swapped
    return [table for table in TABLES if not (swapped and table is SUBSCRIPTIONS)]


def _allowed(app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> bool:
    return router.allow_migrate(schema_editor.connection.alias, app_label)
