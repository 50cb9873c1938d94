"""The tables: what migrations create, and what models say, is the schema of the SQL store."""

from __future__ import annotations

from io import StringIO

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections, models
from django.test import override_settings

from thorn_core.keys import delivery_id, recipient_key
from thorn_core.stores.sql.schema import PREFIX, SUBSCRIPTIONS, TABLES
from thorn_core.stores.sql.wording import Wording

COLUMNS = {
    "sqlite": 'SELECT name, lower(type), "notnull", NULL FROM pragma_table_info(%s) ORDER BY cid',
    "mysql": (
        "SELECT column_name, column_type, is_nullable, collation_name"
        " FROM information_schema.columns WHERE table_schema = database() AND table_name = %s"
        " ORDER BY ordinal_position"
    ),
    "postgresql": (
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull,"
        " (SELECT collname FROM pg_collation c WHERE c.oid = attcollation)"
        " FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum"
    ),
}
INDEXES = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE tbl_name = %s ORDER BY name",
    "mysql": (
        "SELECT index_name, column_name, non_unique FROM information_schema.statistics"
        " WHERE table_schema = database() AND table_name = %s ORDER BY index_name, seq_in_index"
    ),
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE tablename = %s ORDER BY indexname",
}


def asked(alias, questions, table):
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(questions[connection.vendor], [table])
        return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture
def expected(alias):
    """The prefix of tables that the SQL store's own statements have created."""
    wording = Wording(connections[alias].vendor, "%s", "expected_", None)
    with connections[alias].cursor() as cursor:
        for statement in wording.ddl(TABLES):
            cursor.execute(statement)
    yield "expected_"
    with connections[alias].cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DROP TABLE {wording.table(table.name)}")


def test_migrations_create_the_tables_of_the_schema(alias, expected):
    for table in TABLES:
        for questions in (COLUMNS, INDEXES):
            wanted = asked(alias, questions, f"{expected}{table.name}")
            assert wanted or questions is INDEXES
            found = asked(alias, questions, f"{PREFIX}{table.name}")
            assert sorted(map(str, found)) == sorted(
                str(row).replace(expected, PREFIX) for row in wanted
            )


def ours():
    from magazine.models import Hook

    return [*apps.get_app_config("thorn_django").get_models(), Hook]


def test_models_have_the_columns_of_the_schema(alias, expected):
    connection = connections[alias]
    seen = set()
    for model in ours():
        copied = copy_of(model)
        with connection.schema_editor() as editor:
            editor.create_model(copied)
        try:
            found = asked(alias, COLUMNS, copied._meta.db_table)
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(copied)
        table = model._meta.db_table
        name = SUBSCRIPTIONS.name if table == "magazine_hook" else table.removeprefix(PREFIX)
        wanted = asked(alias, COLUMNS, f"{expected}{name}")
        assert sorted(map(str, found)) == sorted(map(str, wanted))
        seen.add(name)
    assert seen == {table.name for table in TABLES}


def copy_of(model):
    """A model of the same fields, whose table has another name."""
    meta = type("Meta", (), {"app_label": "copies", "apps": Apps(), "db_table": "copied"})
    fields = {}
    # A model of the project's has more.
    known = {column.name for table in TABLES for column in table.columns} | {"pk"}
    for field in model._meta.local_fields:
        if field.attname not in known and field.column not in known:
            continue
        copied = field.clone()
        if field.is_relation:
            # Of the same type, as it would be with a constraint.
            copied = field.target_field.clone()
            copied.primary_key, copied.null = field.primary_key, field.null
            copied.db_column = field.column
        fields[field.name] = copied
    return type("Copied", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})


def test_a_project_with_a_model_of_its_own_has_no_other_table(tmp_path, monkeypatch):
    monkeypatch.setitem(connections.settings["other"], "NAME", str(tmp_path / "own.sqlite3"))
    connections["other"].close()
    with override_settings(THORN_SUBSCRIBER_MODEL="magazine.Hook"):
        call_command("migrate", "thorn_django", database="other", stdout=StringIO())
        names = set(connections["other"].introspection.table_names())
        wanted = {f"{PREFIX}{table.name}" for table in TABLES if table is not SUBSCRIPTIONS}
        assert names - {"django_migrations"} == wanted
        call_command("migrate", "thorn_django", "zero", database="other", stdout=StringIO())
        assert set(connections["other"].introspection.table_names()) == {"django_migrations"}
    connections["other"].close()


def test_sqlmigrate_shows_the_statements(alias):
    out = StringIO()
    call_command("sqlmigrate", "thorn_django", "0001", database=alias, stdout=out)
    assert out.getvalue().count("CREATE TABLE") == len(TABLES)


# -- ids


def test_rows_are_found_by_the_ids_that_everybody_knows(alias):
    from thorn_django.models import Delivery, Message, OutboxEntry, QueueEntry, Recipient

    message = "msg_" + "0f" * 16
    delivery, key = delivery_id(message, "sub_1"), recipient_key("sub_1")
    at = {"created_at": 5}
    Message.objects.using(alias).create(id=message, event="a.b", data=b"{}", at=5)
    OutboxEntry.objects.using(alias).create(message_id=message, route_at=0, tries=0, cancelled=0)
    Recipient.objects.using(alias).create(
        id=key, subscription_id="sub_1", origin="", paused=True, blocked_until=0, circuit=0
    )
    row = Delivery(id=delivery, recipient_id=key, state=0, attempts=0, **at)
    row.save(using=alias)
    QueueEntry.objects.using(alias).create(delivery=row, recipient=key, due_at=7, tries=0)
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT id, recipient FROM thorn_deliveries")
        ((found, to),) = cursor.fetchall()
    assert (bytes(found).hex(), to) == (delivery.removeprefix("dlv_"), key)
    rows = Delivery.objects.using(alias).select_related("recipient", "queued")
    (read,) = rows.filter(pk__gte=bytes.fromhex("0f" * 16))
    assert (read.pk, read.message_id, read.recipient.subscription_id) == (
        delivery,
        message,
        "sub_1",
    )
    assert read.recipient.paused is True
    assert read.queued.delivery_id == delivery
    assert Message.objects.using(alias).select_related("waiting").get(pk=message).waiting
    assert rows.filter(pk__in=[delivery]).count() == rows.filter(queued__tries=0).count() == 1
    for wrong in ("dlv_1", message, 7):
        with pytest.raises(ValidationError, match="is not the ID of a delivery"):
            rows.get(pk=wrong)
