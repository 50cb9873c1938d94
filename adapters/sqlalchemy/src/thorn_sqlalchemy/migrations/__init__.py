"""The schema's revisions, run by Alembic."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

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
    command.upgrade(_config(tables, connection=connection), revision)


def script(dialect: str, tables: Tables) -> str:
    """The statements that make the tables of the newest revision where there are none.

    Args:
        dialect: SQLAlchemy's name of the database.
        tables: Their names.
    """
    config = _config(tables, dialect=dialect)
    config.output_buffer = StringIO()
    command.upgrade(config, "head", sql=True)
    return config.output_buffer.getvalue()


def _config(tables: Tables, **attributes: Any) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes.update(attributes, tables=tables)
    return config
