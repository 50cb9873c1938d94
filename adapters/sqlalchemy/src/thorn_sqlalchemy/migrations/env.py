"""Alembic's environment: gets the connection and the tables' names."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
tables = attributes["tables"]
context.configure(
    connection=attributes["connection"],
    target_metadata=tables.metadata,
    version_table=tables.version.name,
    version_table_schema=tables.schema,
    thorn_prefix=tables.prefix,
    thorn_schema=tables.schema,
)
with context.begin_transaction():
    context.run_migrations()
