"""What an error of a driver's, or of SQLAlchemy's, means to the store."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from thorn_core.ports.executor import Failure

# PostgreSQL's SQLSTATE, or the class that it begins with.
STATES = {
    "40001": Failure.RETRY,  # serialization_failure
    "40P01": Failure.RETRY,  # deadlock_detected
    "55P03": Failure.RETRY,  # lock_not_available
    "23505": Failure.DUPLICATE,
    "25006": Failure.READ_ONLY,
    "42P01": Failure.MISSING,  # undefined_table
    "42703": Failure.MISSING,  # undefined_column
    "3F": Failure.MISSING,  # invalid_schema_name
    "53100": Failure.FULL,
    "54": Failure.TOO_LARGE,  # program_limit_exceeded
    "22": Failure.DATA,
    "23": Failure.DATA,
    "08": Failure.LOST,
    "57P01": Failure.LOST,  # admin_shutdown
    "57P02": Failure.LOST,  # crash_shutdown
    "57P03": Failure.LOST,  # cannot_connect_now
}
# Of MySQL's and MariaDB's servers, and from 2000 on their clients'.
CODES = {
    1020: Failure.RETRY,  # record has changed since last read
    1205: Failure.RETRY,  # lock wait timeout
    1213: Failure.RETRY,  # deadlock
    3572: Failure.RETRY,  # NOWAIT
    1062: Failure.DUPLICATE,
    1048: Failure.DATA,  # NULL
    1264: Failure.DATA,  # out of range
    1265: Failure.DATA,  # truncated
    1292: Failure.DATA,  # incorrect value
    1366: Failure.DATA,  # incorrect value
    1406: Failure.DATA,  # too long
    4025: Failure.DATA,  # CHECK
    1153: Failure.TOO_LARGE,  # packet larger than max_allowed_packet
    1301: Failure.TOO_LARGE,  # result larger than max_allowed_packet
    1049: Failure.MISSING,  # database
    1054: Failure.MISSING,  # column
    1146: Failure.MISSING,  # table
    1290: Failure.READ_ONLY,
    1792: Failure.READ_ONLY,
    1836: Failure.READ_ONLY,
    1021: Failure.FULL,
    1114: Failure.FULL,
    1053: Failure.LOST,  # shutdown
    1927: Failure.LOST,  # killed
    2002: Failure.LOST,
    2003: Failure.LOST,
    2006: Failure.LOST,
    2013: Failure.LOST,
    2014: Failure.LOST,
    2055: Failure.LOST,
    4031: Failure.LOST,
}
# SQLite's, the lowest byte of the extended ones.
RESULTS = {
    sqlite3.SQLITE_BUSY: Failure.RETRY,
    sqlite3.SQLITE_LOCKED: Failure.RETRY,
    sqlite3.SQLITE_READONLY: Failure.READ_ONLY,
    sqlite3.SQLITE_FULL: Failure.FULL,
    sqlite3.SQLITE_TOOBIG: Failure.TOO_LARGE,
    sqlite3.SQLITE_CONSTRAINT: Failure.DATA,
    sqlite3.SQLITE_MISMATCH: Failure.DATA,
}
DUPLICATES = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
MISSING = ("no such table", "no such column", "has no column")


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
    return _known(original) or _by_class(original, driver)


def _known(error: BaseException | None) -> Failure | None:
    if isinstance(error, sqlite3.Error):
        return _sqlite(error)
    first = error.args[0] if error is not None and error.args else None
    if isinstance(first, int):
        return CODES.get(first)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return (STATES.get(state) or STATES.get(state[:2])) if isinstance(state, str) else None


def tidy(error: StatementError) -> None:
    """Leave nothing in an error that quotes a row: payloads and secrets, and errors are logged."""
    error.hide_parameters, error.params = True, None
    found: Any = error.orig
    while found is not None:
        if found.args and isinstance(found.args[0], dict):  # pg8000
            fields = found.args[0]
            found.sqlstate, found.args = fields.get("C"), (fields.get("M"),)
        found = found.__cause__ or found.__context__


def _sqlite(error: sqlite3.Error) -> Failure | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # The module's own: the connection is closed, or the statement is wrong.
        return Failure.LOST if "closed database" in str(error) else None
    if code in DUPLICATES:
        return Failure.DUPLICATE
    if code == sqlite3.SQLITE_ERROR and any(words in str(error) for words in MISSING):
        return Failure.MISSING
    return RESULTS.get(code & 0xFF)


def _by_class(error: BaseException | None, driver: Any) -> Failure:
    """By the class of PEP 249 that a driver has chosen."""
    if isinstance(error, driver.DataError):
        return Failure.DATA
    return Failure.OTHER
