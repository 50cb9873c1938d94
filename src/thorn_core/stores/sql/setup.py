"""Creates the tables of a database, or compares them with this version's schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from thorn_core.errors import StoreSetupError
from thorn_core.ports.tables import Table
from thorn_core.stores.sql.schema import MESSAGES, SCHEMA_VERSION, TABLES, VERSION
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import MYSQL, POSTGRESQL, Wording

# Seconds to wait for another process that creates the tables.
TIMEOUT = 600


def create(statements: Statements, place: str) -> str | None:
    """Create missing tables, those of an interrupted creation too.

    Tables from other migrations stay unchanged if they fit this version.

    Args:
        statements: Runs the SQL, in a transaction if the database has transactional DDL.
        place: The database's location for messages.

    Returns:
        The previous version of the schema, or None if there was none.

    Raises:
        StoreSetupError: The tables have an unknown version, or come from other migrations and don't
            fit.
    """
    with alone(statements):
        before = version_of(statements)
        if before is not None and before != VERSION:
            raise StoreSetupError(
                f"the tables in {place} have schema {before}, and this version creates {VERSION};"
                f" use the version of Thorn that created them, or drop them and run it again"
            )
        there = [table for table in TABLES if statements.columns(table)]
        if before is None and there:
            # An empty table of the version: MySQL commits each table, and a creation was
            # interrupted.
            interrupted = bool(statements.columns(SCHEMA_VERSION))
            _check_fitting(statements, place, there, there if interrupted else TABLES)
            if not interrupted:
                return None
        if before is None:
            statements.create([SCHEMA_VERSION])
        # A table that exists isn't touched: CREATE INDEX locks it, if the index exists or not, and
        # may meet a worker in a deadlock.
        statements.create([table for table in TABLES if table not in there])
        if before is None:
            # Another process may have inserted it: MySQL's lock ends before the commit.
            statements.insert(SCHEMA_VERSION, [(VERSION,)], ignoring=True)
    return before


def script(wording: Wording) -> str:
    """Return the SQL that creates the tables and stores their version, with `;` terminators."""
    noted = f"INSERT INTO {wording.table(SCHEMA_VERSION.name)} VALUES ('{VERSION}')"
    return "".join(f"{sql};\n" for sql in (*wording.ddl((*TABLES, SCHEMA_VERSION)), noted))


def _check_fitting(
    statements: Statements, place: str, there: Sequence[Table], needed: Sequence[Table]
) -> None:
    if wrong_with(statements, place, "", needed) is not None:
        named = ", ".join(statements.wording.name(table) for table in there)
        raise StoreSetupError(
            f"{place} has {named}, which Thorn did not create, or not completely; they don't"
            f" fit this version; update them with the migrations that created them, or drop them"
            f" and run it again"
        )


@contextlib.contextmanager
def alone(statements: Statements) -> Iterator[None]:
    """Exclude other processes that create tables: many instances of a program may start at once."""
    dialect, name = statements.wording.dialect, f"{statements.wording.prefix}migrations"
    if dialect == POSTGRESQL:
        statements.rows("SELECT pg_advisory_xact_lock(hashtext(:name.text))", name=name)
    if dialect != MYSQL:
        yield
        return
    statements.rows("SELECT get_lock(:name.text, :seconds.int)", name=name, seconds=TIMEOUT)
    release = "SELECT release_lock(:name.text)"
    try:
        yield
    except BaseException:
        # Raise this error: if it ended the connection, the lock is free, and releasing it fails.
        with contextlib.suppress(Exception):
            statements.rows(release, name=name)
        raise
    statements.rows(release, name=name)


def begun(statements: Statements) -> bool:
    """Return True if tables exist; never repair unsuitable tables silently."""
    return bool(statements.columns(SCHEMA_VERSION) or statements.columns(MESSAGES))


def version_of(statements: Statements) -> str | None:
    """Return the version of the schema; None if Thorn didn't create it."""
    if not statements.columns(SCHEMA_VERSION):
        return None
    found = statements.first("SELECT version_num FROM $schema_version")
    return None if found is None else str(found[0])


def wrong_with(
    statements: Statements, place: str, way_out: str, tables: Sequence[Table] = TABLES
) -> str | None:
    """Return the problem with the tables and its solution; None if there is no problem.

    Args:
        statements: Runs the SQL; a reading connection is enough.
        place: The database's location for messages.
        way_out: The command that creates or migrates the tables.
        tables: The required tables.
    """
    there = {table: statements.columns(table) for table in tables}
    missing = [statements.wording.name(t) for t, columns in there.items() if not columns]
    if len(missing) == len(TABLES):
        return (
            f"the database {place} isn't initialised: it has none of Thorn's tables, such as"
            f" {statements.wording.name(MESSAGES)}; run: {way_out}"
        )
    if missing:
        return (
            f"the database {place} isn't initialised: missing table {', '.join(missing)};"
            f" run: {way_out}"
        )
    version = version_of(statements)
    if version is not None and version < VERSION:
        return (
            f"the tables in {place} have the older schema {version}; this version needs {VERSION};"
            f" run: {way_out}"
        )
    for table, columns in there.items():
        lacking = ", ".join(name for name in table.names if name not in columns)
        name = statements.wording.name(table)
        if lacking and version is not None and version > VERSION:
            return (
                f"the tables in {place} have the newer schema {version}, without {name}.{lacking};"
                f" this version needs {VERSION}: use a newer one"
            )
        if lacking:
            return (
                f"the table {name} in {place} has no column {lacking}: it has an older schema;"
                f" run: {way_out}, or your own migrations"
            )
    return None
