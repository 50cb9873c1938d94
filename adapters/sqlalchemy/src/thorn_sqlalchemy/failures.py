"""What an error of a driver's, or of SQLAlchemy's, means to the store."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from thorn_core.ports import Failure
from thorn_core.stores.sql import failures as codes


class PacketTooLargeError(SQLAlchemyError):
    """A statement is larger than MySQL's max_allowed_packet: sent, it would end the connection."""


def failure_of(error: BaseException, driver: Any) -> Failure | None:
    """Say what an error means; None if it is none of SQLAlchemy's or of a driver's.

    Args:
        error: The error.
        driver: The module of a driver, whose own errors are known too.
    """
    if isinstance(error, PacketTooLargeError):
        return Failure.TOO_LARGE
    if isinstance(error, ConnectionError):  # pg8000 passes it on
        return Failure.LOST
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Failure.LOST
    original = error.orig if isinstance(error, StatementError) else error
    if isinstance(original, ValueError | OverflowError) and original is not error:
        # A driver refuses to encode it: half of a character, NUL, a number beyond 64 bits.
        return Failure.DATA
    if not isinstance(error, SQLAlchemyError | driver.Error):
        return None
    known = None if original is None else codes.failure_of(original)
    if known is None and isinstance(original, driver.DataError):
        return Failure.DATA
    return known or Failure.OTHER


def tidy(error: StatementError) -> None:
    """Leave nothing in an error that quotes a row: payloads and secrets, and errors are logged."""
    error.hide_parameters, error.params = True, None
    found: Any = error.orig
    while found is not None:
        if found.args and isinstance(found.args[0], dict):  # pg8000
            fields = found.args[0]
            found.sqlstate, found.args = fields.get("C"), (fields.get("M"),)
        found = found.__cause__ or found.__context__
