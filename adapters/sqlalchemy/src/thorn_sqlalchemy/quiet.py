"""Hides the parameters of Thorn's statements, such as payloads and secrets, in logs and errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


class _NoRows(logging.Filter):
    """Drops SQLAlchemy's records at DEBUG, which contain rows with secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for records without rows."""
        return record.levelno > logging.DEBUG


# The logger of Thorn's statements, without parameters and rows.
statements = logging.getLogger("sqlalchemy.engine.Engine.thorn")
statements.addFilter(_NoRows())


def quiet(engine: Engine) -> Engine:
    """Return an engine on the same connections that hides parameters and rows in logs."""
    option = engine.execution_options()
    option.hide_parameters = True
    option.logger = statements
    return option


@contextmanager
def quietly(connection: Connection) -> Iterator[None]:
    """Don't log the parameters of statements on a user's connection."""
    engine = connection.engine
    if not engine.logger.isEnabledFor(logging.INFO):
        yield
        return
    connection.engine = quiet(engine)
    try:
        yield
    finally:
        connection.engine = engine
