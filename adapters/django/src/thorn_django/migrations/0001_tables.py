import django.db.models.deletion
from django.db import migrations, models

import thorn_django.fields
import thorn_django.tables


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[thorn_django.tables.CreateTables()],
            state_operations=[
                migrations.CreateModel(
                    name="Attempt",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "delivery_id",
                                "at",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("delivery_id", thorn_django.fields.DeliveryIdField()),
                        ("at", thorn_django.fields.MomentField()),
                        ("number", models.IntegerField()),
                        ("duration", models.BigIntegerField()),
                        ("status", models.SmallIntegerField(null=True)),
                        ("timed_out", thorn_django.fields.FlagField()),
                        ("error", thorn_django.fields.LongTextField(null=True)),
                        ("headers", thorn_django.fields.JsonTextField(null=True)),
                        ("body", models.BinaryField(null=True)),
                    ],
                    options={
                        "db_table": "thorn_attempts",
                    },
                ),
                migrations.CreateModel(
                    name="Delivery",
                    fields=[
                        (
                            "id",
                            thorn_django.fields.DeliveryIdField(primary_key=True, serialize=False),
                        ),
                        (
                            "state",
                            models.SmallIntegerField(
                                choices=[
                                    (0, "Open"),
                                    (1, "Delivered"),
                                    (2, "Failed"),
                                    (3, "Cancelled"),
                                ]
                            ),
                        ),
                        ("attempts", models.IntegerField()),
                        ("created_at", thorn_django.fields.MomentField()),
                        ("finished_at", thorn_django.fields.MomentField(null=True)),
                        ("reason", thorn_django.fields.LongTextField(null=True)),
                        ("target", thorn_django.fields.JsonTextField(null=True)),
                    ],
                    options={
                        "verbose_name_plural": "deliveries",
                        "db_table": "thorn_deliveries",
                    },
                ),
                migrations.CreateModel(
                    name="IdempotencyKey",
                    fields=[
                        (
                            "digest",
                            thorn_django.fields.BytesKeyField(
                                length=32, primary_key=True, serialize=False
                            ),
                        ),
                        ("message_id", thorn_django.fields.MessageIdField()),
                        ("at", thorn_django.fields.MomentField()),
                    ],
                    options={
                        "db_table": "thorn_idempotency",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Message",
                    fields=[
                        (
                            "id",
                            thorn_django.fields.MessageIdField(primary_key=True, serialize=False),
                        ),
                        ("event", thorn_django.fields.KeyField(max_length=200)),
                        ("data", models.BinaryField()),
                        ("at", thorn_django.fields.MomentField()),
                        ("sender", thorn_django.fields.KeyField(max_length=255, null=True)),
                        ("ordering_key", thorn_django.fields.KeyField(max_length=255, null=True)),
                        ("expires_at", thorn_django.fields.MomentField(null=True)),
                        ("extra", thorn_django.fields.JsonTextField(null=True)),
                    ],
                    options={
                        "db_table": "thorn_messages",
                    },
                ),
                migrations.CreateModel(
                    name="OrderingKey",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "recipient",
                                "key_hash",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("recipient", models.BigIntegerField()),
                        ("key_hash", models.BigIntegerField()),
                        ("last", models.BigIntegerField()),
                    ],
                    options={
                        "db_table": "thorn_ordering",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Owner",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("owner", thorn_django.fields.KeyField(max_length=255, unique=True)),
                        ("ready_at", thorn_django.fields.MomentField(null=True)),
                        ("tat", models.BigIntegerField(null=True)),
                    ],
                    options={
                        "db_table": "thorn_owners",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Recipient",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        (
                            "subscription_id",
                            thorn_django.fields.KeyField(max_length=120, unique=True),
                        ),
                        ("owner", thorn_django.fields.KeyField(max_length=255, null=True)),
                        ("origin", thorn_django.fields.KeyField(max_length=270)),
                        ("ready_at", thorn_django.fields.MomentField(null=True)),
                        ("paused", thorn_django.fields.FlagField()),
                        ("blocked_until", thorn_django.fields.MomentField()),
                        ("circuit", models.SmallIntegerField()),
                        ("probe_until", thorn_django.fields.MomentField(null=True)),
                        ("tat", models.BigIntegerField(null=True)),
                    ],
                    options={
                        "db_table": "thorn_recipients",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="SubscriptionPattern",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "pattern",
                                "owner",
                                "subscription_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("pattern", thorn_django.fields.KeyField(max_length=200)),
                        ("owner", thorn_django.fields.KeyField(max_length=255)),
                        ("subscription_id", thorn_django.fields.KeyField(max_length=120)),
                    ],
                    options={
                        "db_table": "thorn_patterns",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Subscription",
                    fields=[
                        (
                            "id",
                            thorn_django.fields.KeyField(
                                editable=False, max_length=120, primary_key=True, serialize=False
                            ),
                        ),
                        ("version", models.IntegerField(default=1, editable=False)),
                        (
                            "owner",
                            thorn_django.fields.KeyField(blank=True, max_length=255, null=True),
                        ),
                        ("url", thorn_django.fields.LongTextField()),
                        ("events", thorn_django.fields.JsonTextField()),
                        ("secrets", thorn_django.fields.JsonTextField(editable=False)),
                        (
                            "secret_expiry",
                            thorn_django.fields.JsonTextField(editable=False, null=True),
                        ),
                        ("content_type", thorn_django.fields.KeyField(max_length=255)),
                        ("hmac_digest", thorn_django.fields.KeyField(max_length=16)),
                        ("headers", thorn_django.fields.JsonTextField(blank=True, null=True)),
                        ("description", thorn_django.fields.LongTextField(blank=True)),
                        ("rate_limit", models.FloatField(blank=True, null=True)),
                        ("enabled", thorn_django.fields.FlagField()),
                        ("paused", thorn_django.fields.FlagField(default=False)),
                        (
                            "disabled_reason",
                            thorn_django.fields.LongTextField(blank=True, null=True),
                        ),
                        (
                            "failing_since",
                            thorn_django.fields.MomentField(blank=True, editable=False, null=True),
                        ),
                        ("failures", models.IntegerField(default=0, editable=False)),
                        (
                            "last_failure_at",
                            thorn_django.fields.MomentField(blank=True, editable=False, null=True),
                        ),
                        ("created_at", thorn_django.fields.MomentField(editable=False)),
                        ("updated_at", thorn_django.fields.MomentField(editable=False)),
                        ("extra", thorn_django.fields.JsonTextField(editable=False, null=True)),
                    ],
                    options={
                        "db_table": "thorn_subscriptions",
                        "swappable": "THORN_SUBSCRIBER_MODEL",
                        "indexes": [
                            models.Index(
                                fields=["owner", "id"], name="thorn_subscriptions_owner_id"
                            )
                        ],
                    },
                ),
                migrations.CreateModel(
                    name="QueueEntry",
                    fields=[
                        (
                            "delivery",
                            models.OneToOneField(
                                db_column="id",
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="queued",
                                serialize=False,
                                to="thorn_django.delivery",
                            ),
                        ),
                        ("recipient", models.BigIntegerField()),
                        ("due_at", thorn_django.fields.MomentField()),
                        ("tries", models.IntegerField()),
                        ("leased_until", thorn_django.fields.MomentField(null=True)),
                        ("token", thorn_django.fields.KeyField(max_length=64, null=True)),
                        ("key_hash", models.BigIntegerField(null=True)),
                        ("seq", models.BigIntegerField(null=True)),
                    ],
                    options={
                        "db_table": "thorn_queue",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxEntry",
                    fields=[
                        (
                            "message",
                            models.OneToOneField(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="waiting",
                                serialize=False,
                                to="thorn_django.message",
                            ),
                        ),
                        ("route_at", thorn_django.fields.MomentField()),
                        ("tries", models.SmallIntegerField()),
                        ("leased_until", thorn_django.fields.MomentField(null=True)),
                        ("token", thorn_django.fields.KeyField(max_length=64, null=True)),
                        (
                            "after_recipient",
                            thorn_django.fields.KeyField(max_length=120, null=True),
                        ),
                        ("cancelled", thorn_django.fields.FlagField()),
                    ],
                    options={
                        "db_table": "thorn_outbox",
                        "default_permissions": (),
                    },
                ),
                migrations.AddField(
                    model_name="delivery",
                    name="recipient",
                    field=models.ForeignKey(
                        db_column="recipient",
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="thorn_django.recipient",
                    ),
                ),
            ],
        )
    ]
