"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def key(length: int) -> sa.String:
    """A text that is compared by its code points."""
    return sa.String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Create them."""
    options = op.get_context().opts
    prefix, schema = options["thorn_prefix"], options["thorn_schema"]
    text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    data = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    time, number = sa.BigInteger(), sa.Integer()

    def table(name: str, *columns: sa.Column[Any]) -> None:
        op.create_table(f"{prefix}{name}", *columns, schema=schema, **OPTIONS)

    def index(table: str, name: str, *columns: str, where: str | None = None) -> None:
        condition = None if where is None else sa.text(where)
        op.create_index(
            f"{prefix}{table}_{name}",
            f"{prefix}{table}",
            list(columns),
            schema=schema,
            postgresql_where=condition,
            sqlite_where=condition,
        )

    def column(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
        return sa.Column(name, kind, **{"nullable": False, **options})

    def optional(name: str, kind: Any) -> sa.Column[Any]:
        return sa.Column(name, kind, nullable=True)

    table(
        "subscriptions",
        column("id", key(120), primary_key=True),
        optional("owner", key(255)),
        column("url", text),
        column("events", text),
        column("secrets", text),
        optional("secret_expiry", text),
        column("content_type", sa.String(255)),
        column("hmac_digest", sa.String(16)),
        optional("headers", text),
        column("description", text),
        optional("rate_limit", sa.Double()),
        column("enabled", sa.Boolean()),
        optional("disabled_reason", text),
        optional("failing_since", time),
        column("failures", number),
        optional("last_failure_at", time),
        column("created_at", time),
        column("updated_at", time),
    )
    index("subscriptions", "owner", "owner", "id")
    table(
        "subscription_patterns",
        column("pattern", key(200), primary_key=True),
        column("owner", key(255), primary_key=True),
        column("subscription_id", key(120), primary_key=True),
    )
    index("subscription_patterns", "any_owner", "pattern", "subscription_id")
    index("subscription_patterns", "subscription", "subscription_id")
    table(
        "messages",
        column("id", key(64), primary_key=True),
        column("event", key(200)),
        column("data", data),
        column("at", time),
        optional("sender", key(255)),
        optional("extra", text),
        optional("route_at", time),
    )
    index("messages", "route", "route_at", "at", "id")
    table(
        "deliveries",
        column("id", key(160), primary_key=True),
        column("message_id", key(64)),
        column("subscription_id", key(120)),
        column("event", key(200)),
        column("recipient", key(260)),
        column("state", key(10)),
        column("attempt_count", number),
        column("attempts_before", number),
        column("due_at", time),
        column("created_at", time),
        optional("settled_at", time),
        optional("reason", text),
        optional("target", text),
        optional("ready_at", time),
        optional("token", key(64)),
        optional("leased_until", time),
    )
    index(
        "deliveries", "ready", "recipient", "ready_at", "id", where="ready_at IS NOT NULL"
    )  # fmt: skip
    index("deliveries", "lease", "leased_until", "id", where="leased_until IS NOT NULL")
    index("deliveries", "subscription", "subscription_id", "created_at", "id")
    index("deliveries", "created", "created_at", "id")
    table(
        "attempts",
        column("id", key(64), primary_key=True),
        column("delivery_id", key(160)),
        column("recipient", key(260)),
        column("number", number),
        column("at", time),
        column("duration", sa.Double()),
        optional("status", sa.SmallInteger()),
        optional("headers", text),
        optional("body", data),
        optional("error", text),
        column("timed_out", sa.Boolean()),
    )
    index("attempts", "delivery", "delivery_id", "id")
    index("attempts", "at", "at")
    table(
        "recipients",
        column("recipient", key(260), primary_key=True),
        optional("ready_at", time),
        column("paused_until", time),
    )
    index("recipients", "ready", "ready_at", "recipient")
