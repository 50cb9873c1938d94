"""The tables: what a row holds, and by which index it is found."""

from __future__ import annotations

from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import mysql, postgresql

# The revision of the migrations that this code works with.
REVISION = "0001"
PREFIX = "thorn_"

# Characters; what is longer is refused before it gets here.
ID_LENGTH = 64
NAME_LENGTH = 200
OWNER_LENGTH = 255
SUBSCRIPTION_LENGTH = 120
DELIVERY_LENGTH = 160
RECIPIENT_LENGTH = 260


def key(length: int) -> String:
    """A text that is compared and ordered by its code points on every database."""
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


LongText = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
LongBytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
# utf8mb4_bin compares by code points: patterns and ids differ in case.
MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
MARIADB = {name.replace("mysql", "mariadb"): value for name, value in MYSQL.items()}
OPTIONS: dict[str, Any] = {**MYSQL, **MARIADB}


@attrs.frozen(kw_only=True)
class Tables:
    """Thorn's tables in a metadata. Times are microseconds since 1970 in UTC.

    Attributes:
        metadata: What they belong to.
        prefix: What their names begin with.
        schema: The database schema that they are in; None is the default one.
        subscriptions: A row each.
        patterns: By which pattern and owner an enabled subscription is matched.
        messages: A row each; `route_at` is 0 until it is leased for routing, NULL once it is
            routed.
        deliveries: A row each; `ready_at` is its `due_at` while it is pending, and `leased_until`
            is set while it is in flight.
        attempts: A row each.
        recipients: When there may next be something to claim for a recipient (`ready_at`, never
            later than it really is), and until when it is paused.
        version: The migrations' revision.
    """

    metadata: MetaData
    prefix: str
    schema: str | None
    subscriptions: Table
    patterns: Table
    messages: Table
    deliveries: Table
    attempts: Table
    recipients: Table
    version: Table

    def all(self) -> list[Table]:
        """Every table, the migrations' version aside."""
        return [
            self.subscriptions,
            self.patterns,
            self.messages,
            self.deliveries,
            self.attempts,
            self.recipients,
        ]


def define_tables(metadata: MetaData, *, prefix: str = PREFIX, schema: str | None = None) -> Tables:
    """Define Thorn's tables in a metadata: your own, if your migrations are to create them.

    Args:
        metadata: Where to.
        prefix: What the tables' names begin with.
        schema: The database schema that they are in.

    Example:
        >>> tables = define_tables(MetaData(), prefix="hooks_")
        >>> tables.messages.name
        'hooks_messages'
    """

    def table(name: str, *items: Column[Any] | Index) -> Table:
        return Table(f"{prefix}{name}", metadata, *items, schema=schema, **OPTIONS)

    def index(table: str, name: str, *columns: str, where: str | None = None) -> Index:
        condition = None if where is None else text(where)
        return Index(
            f"{prefix}{table}_{name}",
            *columns,
            postgresql_where=condition,
            sqlite_where=condition,
        )

    return Tables(
        metadata=metadata,
        prefix=prefix,
        schema=schema,
        subscriptions=table(
            "subscriptions",
            Column("id", key(SUBSCRIPTION_LENGTH), primary_key=True),
            Column("owner", key(OWNER_LENGTH)),
            Column("url", LongText, nullable=False),
            Column("events", LongText, nullable=False),
            Column("secrets", LongText, nullable=False),
            Column("secret_expiry", LongText),
            Column("content_type", String(255), nullable=False),
            Column("hmac_digest", String(16), nullable=False),
            Column("headers", LongText),
            Column("description", LongText, nullable=False),
            Column("rate_limit", Double),
            Column("enabled", Boolean, nullable=False),
            Column("disabled_reason", LongText),
            Column("failing_since", BigInteger),
            Column("failures", Integer, nullable=False),
            Column("last_failure_at", BigInteger),
            Column("created_at", BigInteger, nullable=False),
            Column("updated_at", BigInteger, nullable=False),
            index("subscriptions", "owner", "owner", "id"),
        ),
        patterns=table(
            "subscription_patterns",
            Column("pattern", key(NAME_LENGTH), primary_key=True),
            # Empty for an operator's: no owner has an empty id.
            Column("owner", key(OWNER_LENGTH), primary_key=True),
            Column("subscription_id", key(SUBSCRIPTION_LENGTH), primary_key=True),
            index("subscription_patterns", "any_owner", "pattern", "subscription_id"),
            index("subscription_patterns", "subscription", "subscription_id"),
        ),
        messages=table(
            "messages",
            Column("id", key(ID_LENGTH), primary_key=True),
            Column("event", key(NAME_LENGTH), nullable=False),
            Column("data", LongBytes, nullable=False),
            Column("at", BigInteger, nullable=False),
            Column("sender", key(OWNER_LENGTH)),
            # Of what few messages have, as JSON.
            Column("extra", LongText),
            Column("route_at", BigInteger),
            index("messages", "route", "route_at", "at", "id"),
        ),
        deliveries=table(
            "deliveries",
            Column("id", key(DELIVERY_LENGTH), primary_key=True),
            Column("message_id", key(ID_LENGTH), nullable=False),
            Column("subscription_id", key(SUBSCRIPTION_LENGTH), nullable=False),
            Column("event", key(NAME_LENGTH), nullable=False),
            Column("recipient", key(RECIPIENT_LENGTH), nullable=False),
            Column("state", key(10), nullable=False),
            Column("attempt_count", Integer, nullable=False),
            Column("attempts_before", Integer, nullable=False),
            Column("due_at", BigInteger, nullable=False),
            Column("created_at", BigInteger, nullable=False),
            Column("settled_at", BigInteger),
            Column("reason", LongText),
            Column("target", LongText),
            Column("ready_at", BigInteger),
            Column("token", key(ID_LENGTH)),
            Column("leased_until", BigInteger),
            # Of the few that are pending or in flight, among the many that are history.
            index(
                "deliveries", "ready", "recipient", "ready_at", "id",
                where="ready_at IS NOT NULL",
            ),
            index(
                "deliveries", "lease", "leased_until", "id",
                where="leased_until IS NOT NULL",
            ),
            index("deliveries", "subscription", "subscription_id", "created_at", "id"),
            index("deliveries", "created", "created_at", "id"),
        ),
        attempts=table(
            "attempts",
            Column("id", key(ID_LENGTH), primary_key=True),
            Column("delivery_id", key(DELIVERY_LENGTH), nullable=False),
            Column("recipient", key(RECIPIENT_LENGTH), nullable=False),
            Column("number", Integer, nullable=False),
            Column("at", BigInteger, nullable=False),
            Column("duration", Double, nullable=False),
            Column("status", SmallInteger),
            Column("headers", LongText),
            Column("body", LongBytes),
            Column("error", LongText),
            Column("timed_out", Boolean, nullable=False),
            index("attempts", "delivery", "delivery_id", "id"),
            index("attempts", "at", "at"),
        ),
        recipients=table(
            "recipients",
            Column("recipient", key(RECIPIENT_LENGTH), primary_key=True),
            Column("ready_at", BigInteger),
            Column("paused_until", BigInteger, nullable=False),
            index("recipients", "ready", "ready_at", "recipient"),
        ),
        # In no metadata of the user's: Alembic keeps it by itself.
        version=Table(
            f"{prefix}schema_version",
            MetaData(),
            Column("version_num", String(32), primary_key=True),
            schema=schema,
        ),
    )  # fmt: skip
