"""Thorn's tables as SQLAlchemy tables, for programs whose own migrations create them."""

from __future__ import annotations

from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Index as SqlIndex
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.types import TypeEngine

from thorn_core.ports import tables as ports
from thorn_core.ports.tables import Kind
from thorn_core.stores.sql.schema import PREFIX, SCHEMA_VERSION, TABLES
from thorn_core.stores.sql.wording import NOPAD

MYSQL_OPTIONS = {"engine": "InnoDB", "charset": "utf8mb4", "collate": NOPAD}
OPTIONS: dict[str, Any] = {
    f"{name}_{option}": value
    for name in ("mysql", "mariadb")
    for option, value in MYSQL_OPTIONS.items()
}


@attrs.frozen(kw_only=True)
class Tables:
    """Thorn's tables in a metadata.

    Attributes:
        metadata: The metadata of the tables.
        prefix: The prefix of their names.
        schema: Their database schema; None is the default schema.
        subscriptions: One row per subscription.
        patterns: The patterns and owners of enabled subscriptions.
        owners: The turns of owners.
        recipients: The queue's view of each subscription.
        messages: One row per message.
        idempotency: The message of each idempotency key.
        outbox: One row per message that is not routed yet.
        queue: One row per delivery that is pending or in flight.
        deliveries: One row per delivery.
        attempts: One row per attempt.
        ordering: The last number of each recipient's ordering key.
        version: The version of the schema, in separate metadata.
    """

    metadata: MetaData
    prefix: str
    schema: str | None
    subscriptions: Table
    patterns: Table
    owners: Table
    recipients: Table
    messages: Table
    idempotency: Table
    outbox: Table
    queue: Table
    deliveries: Table
    attempts: Table
    ordering: Table
    version: Table

    def all(self) -> list[Table]:
        """Return every table except the version."""
        return [getattr(self, table.name) for table in TABLES]


def define_tables(metadata: MetaData, *, prefix: str = PREFIX, schema: str | None = None) -> Tables:
    """Define Thorn's tables in a metadata, such as your own if your migrations create them.

    Args:
        metadata: The target metadata.
        prefix: The prefix of the tables' names.
        schema: The database schema that they are in.

    Example:
        >>> tables = define_tables(MetaData(), prefix="hooks_")
        >>> tables.messages.name
        'hooks_messages'
    """
    made = {table.name: _table(table, metadata, prefix, schema) for table in TABLES}
    version = _table(SCHEMA_VERSION, MetaData(), prefix, schema)
    return Tables(metadata=metadata, prefix=prefix, schema=schema, version=version, **made)


def _table(table: ports.Table, metadata: MetaData, prefix: str, schema: str | None) -> Table:
    name = f"{prefix}{table.name}"
    columns = [
        SqlColumn(
            column.name,
            type_of(column),
            primary_key=column.name in table.key,
            nullable=column.null,
            autoincrement=False,
        )
        for column in table.columns
    ]
    indexes = [
        SqlIndex(
            f"{name}_{index.name}",
            *index.columns,
            unique=index.unique,
            **_index_options(index),
        )
        for index in table.indexes
    ]
    options = dict(OPTIONS)
    if table.narrow:
        options["sqlite_with_rowid"] = False
    if table.churning:
        options["postgresql_with"] = {"fillfactor": 50}
    return Table(name, metadata, *columns, *indexes, schema=schema, **options)


def _index_options(index: ports.Index) -> dict[str, Any]:
    return {"postgresql_using": "brin"} if index.brin else {}


def type_of(column: ports.Column) -> TypeEngine[Any]:
    """Return SQLAlchemy's type of a column."""
    length = column.length
    match column.kind:
        case Kind.KEY:
            return LargeBinary(length).with_variant(mysql.BINARY(length), "mysql", "mariadb")
        case Kind.BYTES:
            return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
        case Kind.BIG:
            return BigInteger()
        case Kind.INT:
            return Integer()
        case Kind.SMALL:
            return SmallInteger()
        case Kind.REAL:
            return Double().with_variant(sqlite.REAL(), "sqlite")
        case Kind.NAME:
            exact = postgresql.VARCHAR(length, collation="C")
            return String(length).with_variant(exact, "postgresql")
        case Kind.TEXT:
            return Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
