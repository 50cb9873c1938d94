"""Maps the error codes of databases to failures."""

from __future__ import annotations

import re
import sqlite3

from thorn_core.ports.executor import Failure

# PostgreSQL's SQLSTATEs or their classes.
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
# Error codes of MySQL and MariaDB servers, and from 2000 on of their clients.
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
    1690: Failure.DATA,  # out of range
    4025: Failure.DATA,  # CHECK
    1153: Failure.TOO_LARGE,  # packet larger than max_allowed_packet
    1301: Failure.TOO_LARGE,  # result larger than max_allowed_packet
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
    2045: Failure.LOST,
    2055: Failure.LOST,
    4031: Failure.LOST,
}
# SQLite's primary result codes: the lowest byte of the extended ones.
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

# Parts of messages, and their remedies. Errors of connecting often have no code.
REMEDIES = {
    r"unable to open database file": "create its directory, or make it writable",
    r"connection refused|can't connect to|can't create a connection|name or service not known"
    r"|resolve host|translate host name|no route to host|timeout expired": "check host and port",
    r"access denied|authentication failed|no password supplied|role \S+ does not exist": (
        "check user, password and permissions"
    ),
}
_NO_DATABASE = re.compile(
    r"""unknown database ['"](.+?)['"]|database ['"](.+?)['"] does not exist""", re.IGNORECASE
)


def missing_database(message: str) -> str | None:
    r"""Return the name of the database that doesn't exist; None for other messages.

    Example:
        >>> missing_database('FATAL: database "shop" does not exist')
        'shop'
        >>> missing_database("(1049, \"Unknown database 'shop'\")")
        'shop'
    """
    found = _NO_DATABASE.search(message)
    return None if found is None else found[1] or found[2]


def remedy_of(message: str) -> str | None:
    """Return the remedy for a database's error; None if there is no known one.

    Example:
        >>> remedy_of("unable to open database file")
        'create its directory, or make it writable'
    """
    for part, remedy in REMEDIES.items():
        if re.search(part, message, re.IGNORECASE):
            return remedy
    return None


def failure_of(error: BaseException) -> Failure | None:
    """Return the meaning of a driver's error by its code; None for unknown codes.

    Args:
        error: An error of sqlite3, or an error with a code of PostgreSQL or MySQL.

    Example:
        >>> failure_of(sqlite3.OperationalError("no such table: thorn_outbox"))
        <Failure.MISSING: 'missing'>
        >>> failure_of(Exception(1213, "Deadlock found"))
        <Failure.RETRY: 'retry'>
    """
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    first = error.args[0] if error.args else None
    if isinstance(first, int):
        # MySQL's SQLSTATEs, which some drivers also provide, are less specific.
        return CODES.get(first)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return (STATES.get(state) or STATES.get(state[:2])) if isinstance(state, str) else None


def _of_sqlite(error: sqlite3.Error) -> Failure | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in DUPLICATES:
        return Failure.DUPLICATE
    if code == sqlite3.SQLITE_ERROR:
        if "closed database" in str(error):
            return Failure.LOST
        return Failure.MISSING if any(words in str(error) for words in MISSING) else None
    return RESULTS.get(code & 0xFF)
