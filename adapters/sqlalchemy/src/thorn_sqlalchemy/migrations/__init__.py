"""Runs the schema's revisions with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from thorn_sqlalchemy.tables import Tables

HERE = Path(__file__).parent


def upgrade(connection: Connection, tables: Tables, revision: str = "head") -> None:
    """Migrate the tables to a revision, in the connection's transaction.

    Args:
        connection: A connection to the tables' database.
        tables: The tables' names.
        revision: The newest revision, or an earlier release's.
    """
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes.update(connection=connection, tables=tables)
    command.upgrade(config, revision)
