"""The schema's revisions, run by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from thorn_sqlalchemy.tables import Tables

HERE = Path(__file__).parent


def upgrade(connection: Connection, tables: Tables, revision: str = "head") -> None:
    """Bring the tables up to a revision, in the connection's transaction.

    Args:
        connection: To their database.
        tables: Their names.
        revision: The newest, or that of an earlier release.
    """
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes.update(connection=connection, tables=tables)
    command.upgrade(config, revision)
