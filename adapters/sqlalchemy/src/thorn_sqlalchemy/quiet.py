"""Thorn's statements in SQLAlchemy's logs and errors: their parameters are payloads and secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


class _NoRows(logging.Filter):
    """Drops what SQLAlchemy says at DEBUG: each row that a statement gives, secrets included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True for what may be logged."""
        return record.levelno > logging.DEBUG


# Thorn's statements are logged here, without parameters and rows.
statements = logging.getLogger("sqlalchemy.engine.Engine.thorn")
statements.addFilter(_NoRows())


def quiet(engine: Engine) -> Engine:
    """An engine on the same connections that neither logs parameters and rows nor quotes them."""
    option = engine.execution_options()
    option.hide_parameters = True
    option.logger = statements
    return option


@contextmanager
def quietly(connection: Connection) -> Iterator[None]:
    """Don't log the parameters of statements on a connection of the user's."""
    engine = connection.engine
    if not engine.logger.isEnabledFor(logging.INFO):
        yield
        return
    connection.engine = quiet(engine)
    try:
        yield
    finally:
        connection.engine = engine
