from django.db import migrations, models

import thorn_django.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "id",
                    thorn_django.fields.KeyField(
                        editable=False, max_length=120, primary_key=True, serialize=False
                    ),
                ),
                ("owner", thorn_django.fields.KeyField(blank=True, max_length=255, null=True)),
                ("url", thorn_django.fields.LongTextField()),
                ("events", thorn_django.fields.JsonTextField()),
                ("secrets", thorn_django.fields.JsonTextField(editable=False)),
                ("secret_expiry", thorn_django.fields.JsonTextField(editable=False, null=True)),
                ("content_type", models.CharField(max_length=255)),
                ("hmac_digest", models.CharField(max_length=16)),
                ("headers", thorn_django.fields.JsonTextField(blank=True, null=True)),
                ("description", thorn_django.fields.LongTextField(blank=True)),
                ("rate_limit", models.FloatField(blank=True, null=True)),
                ("enabled", models.BooleanField()),
                ("disabled_reason", thorn_django.fields.LongTextField(blank=True, null=True)),
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
            ],
            options={
                "db_table": "thorn_subscriptions",
                "swappable": "THORN_SUBSCRIBER_MODEL",
                "indexes": [models.Index(fields=["owner", "id"], name="thorn_subscriptions_owner")],
            },
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                (
                    "id",
                    thorn_django.fields.KeyField(max_length=64, primary_key=True, serialize=False),
                ),
                ("delivery_id", thorn_django.fields.KeyField(max_length=160)),
                ("recipient", thorn_django.fields.KeyField(max_length=260)),
                ("number", models.IntegerField()),
                ("at", thorn_django.fields.MomentField()),
                ("duration", models.FloatField()),
                ("status", models.SmallIntegerField(null=True)),
                ("headers", thorn_django.fields.JsonTextField(null=True)),
                ("body", models.BinaryField(null=True)),
                ("error", thorn_django.fields.LongTextField(null=True)),
                ("timed_out", models.BooleanField()),
            ],
            options={
                "db_table": "thorn_attempts",
                "indexes": [
                    models.Index(fields=["delivery_id", "id"], name="thorn_attempts_delivery"),
                    models.Index(fields=["at"], name="thorn_attempts_at"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    thorn_django.fields.KeyField(max_length=160, primary_key=True, serialize=False),
                ),
                ("message_id", thorn_django.fields.KeyField(max_length=64)),
                ("subscription_id", thorn_django.fields.KeyField(max_length=120)),
                ("event", thorn_django.fields.KeyField(max_length=200)),
                ("recipient", thorn_django.fields.KeyField(max_length=260)),
                (
                    "state",
                    thorn_django.fields.KeyField(
                        choices=[
                            ("pending", "Pending"),
                            ("in_flight", "In Flight"),
                            ("delivered", "Delivered"),
                            ("exhausted", "Exhausted"),
                            ("discarded", "Discarded"),
                        ],
                        max_length=10,
                    ),
                ),
                ("attempt_count", models.IntegerField()),
                ("attempts_before", models.IntegerField()),
                ("due_at", thorn_django.fields.MomentField()),
                ("created_at", thorn_django.fields.MomentField()),
                ("settled_at", thorn_django.fields.MomentField(null=True)),
                ("reason", thorn_django.fields.LongTextField(null=True)),
                ("target", thorn_django.fields.JsonTextField(null=True)),
                ("ready_at", thorn_django.fields.MomentField(null=True)),
                ("token", thorn_django.fields.KeyField(max_length=64, null=True)),
                ("leased_until", thorn_django.fields.MomentField(null=True)),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "db_table": "thorn_deliveries",
                "indexes": [
                    thorn_django.fields.PartialIndex(
                        fields=["recipient", "ready_at", "id"],
                        name="thorn_deliveries_ready",
                        present="ready_at",
                    ),
                    thorn_django.fields.PartialIndex(
                        fields=["leased_until", "id"],
                        name="thorn_deliveries_lease",
                        present="leased_until",
                    ),
                    models.Index(
                        fields=["subscription_id", "created_at", "id"],
                        name="thorn_deliveries_subscription",
                    ),
                    models.Index(fields=["created_at", "id"], name="thorn_deliveries_created"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    thorn_django.fields.KeyField(max_length=64, primary_key=True, serialize=False),
                ),
                ("event", thorn_django.fields.KeyField(max_length=200)),
                ("data", models.BinaryField()),
                ("at", thorn_django.fields.MomentField()),
                ("sender", thorn_django.fields.KeyField(max_length=255, null=True)),
                ("extra", thorn_django.fields.JsonTextField(null=True)),
                ("route_at", thorn_django.fields.MomentField(null=True)),
            ],
            options={
                "db_table": "thorn_messages",
                "indexes": [
                    models.Index(fields=["route_at", "at", "id"], name="thorn_messages_route")
                ],
            },
        ),
        migrations.CreateModel(
            name="Recipient",
            fields=[
                (
                    "recipient",
                    thorn_django.fields.KeyField(max_length=260, primary_key=True, serialize=False),
                ),
                ("ready_at", thorn_django.fields.MomentField(null=True)),
                ("paused_until", thorn_django.fields.MomentField()),
            ],
            options={
                "db_table": "thorn_recipients",
                "indexes": [
                    models.Index(fields=["ready_at", "recipient"], name="thorn_recipients_ready")
                ],
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
                "db_table": "thorn_subscription_patterns",
                "indexes": [
                    models.Index(
                        fields=["pattern", "subscription_id"], name="thorn_patterns_any_owner"
                    ),
                    models.Index(fields=["subscription_id"], name="thorn_patterns_subscription"),
                ],
            },
        ),
    ]
