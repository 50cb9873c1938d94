"""Maps errors of SQLAlchemy and of drivers to failures."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from thorn_core.ports import Failure
from thorn_core.stores.sql import failures as codes


class PacketTooLargeError(SQLAlchemyError):
    """A statement exceeds MySQL's max_allowed_packet; the server would end the connection."""


def failure_of(error: BaseException, driver: Any) -> Failure | None:
    """Return the meaning of an error; None if it isn't an error of SQLAlchemy or a driver.

    Args:
        error: The error.
        driver: A driver's module, to recognise the driver's own errors, too.
    """
    if isinstance(error, PacketTooLargeError):
        return Failure.TOO_LARGE
    if isinstance(error, ConnectionError):  # pg8000 raises it unchanged.
        return Failure.LOST
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Failure.LOST
    original = error.orig if isinstance(error, StatementError) else error
    if isinstance(original, ValueError | OverflowError) and original is not error:
        # A driver can't encode a value: a lone surrogate, NUL, or a number beyond 64 bits.
        return Failure.DATA
    if not isinstance(error, SQLAlchemyError | driver.Error):
        return None
    known = None if original is None else codes.failure_of(original)
    if known is None and isinstance(original, driver.DataError):
        return Failure.DATA
    return known or Failure.OTHER


def tidy(error: StatementError) -> None:
    """Remove quoted rows from an error: they contain payloads and secrets; errors are logged."""
    error.hide_parameters, error.params = True, None
    found: Any = error.orig
    while found is not None:
        if found.args and isinstance(found.args[0], dict):  # pg8000
            fields = found.args[0]
            found.sqlstate, found.args = fields.get("C"), (fields.get("M"),)
        found = found.__cause__ or found.__context__
