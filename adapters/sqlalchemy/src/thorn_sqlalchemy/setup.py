"""Setting a database up: the tables created, migrated, or found wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, func, inspect, select

from thorn_core import StoreSetupError
from thorn_sqlalchemy.schema import PREFIX, REVISION, Tables

# Seconds to wait for somebody else who migrates.
TIMEOUT = 600


def set_up(connection: Connection, tables: Tables) -> str | None:
    """Create the tables, or bring them up to this version's schema, in the transaction.

    Args:
        connection: To their database.
        tables: Which.

    Returns:
        The revision that was there before; None if there was none.

    Raises:
        StoreSetupError: They are of a schema that this version doesn't know, or other migrations
            made them and they aren't those of this version.
    """
    # Alembic is slow to import, and few processes migrate.
    from alembic.util import CommandError

    from thorn_sqlalchemy.migrations import upgrade

    with _alone(connection, tables):
        before = revision_of(connection, tables)
        if before is not None or not _made_by_others(connection, tables):
            try:
                upgrade(connection, tables)
            except CommandError as error:
                raise StoreSetupError(
                    f"the tables in {_place(connection)} can't be migrated to schema {REVISION}:"
                    f" {error}; if a newer version created them, use that version"
                ) from error
        return before


def _place(connection: Connection) -> str:
    return connection.engine.url.render_as_string(hide_password=True)


@contextlib.contextmanager
def _alone(connection: Connection, tables: Tables) -> Iterator[None]:
    """Let others who migrate wait: as many instances of a program start at once."""
    name = f"{tables.prefix}migrations"
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))
    if dialect not in ("mysql", "mariadb"):
        yield
        return
    connection.execute(select(func.get_lock(name, TIMEOUT)))
    try:
        yield
    finally:
        connection.execute(select(func.release_lock(name)))


def revision_of(connection: Connection, tables: Tables) -> str | None:
    """The schema's revision that is there; None if the migrations haven't been run."""
    version = tables.version
    if not inspect(connection).has_table(version.name, schema=version.schema):
        return None
    found: str | None = connection.execute(select(version.c.version_num)).scalar()
    return found


def _made_by_others(connection: Connection, tables: Tables) -> bool:
    names = set(inspect(connection).get_table_names(schema=tables.schema))
    there = [table.name for table in tables.all() if table.name in names]
    if there and wrong_with(connection, tables) is not None:
        raise StoreSetupError(
            f"{_place(connection)} has {', '.join(there)}, which thorn init-db did not create, or"
            f" not completely, and which don't fit this version; update them with the migrations"
            f" that created them, or drop them and run it again"
        )
    return bool(there)


def wrong_with(connection: Connection, tables: Tables) -> str | None:
    """What is wrong with the tables, and the way out; None if nothing is."""
    where = _place(connection)
    way_out = f"run: thorn init-db --store {where}"
    if tables.prefix != PREFIX:
        way_out += f" --prefix {tables.prefix!r}"
    if tables.schema is not None:
        way_out += f" --schema {tables.schema}"
    asked = inspect(connection)
    there = set(asked.get_table_names(schema=tables.schema))
    missing = [table.name for table in tables.all() if table.name not in there]
    if missing:
        return (
            f"the database {where} isn't initialised: missing table {', '.join(missing)}; {way_out}"
        )
    revision = revision_of(connection, tables)
    if revision is not None and revision < REVISION:
        return (
            f"the tables in {where} have the older schema {revision}; this version needs"
            f" {REVISION}; {way_out}"
        )
    for table in tables.all():
        columns = {column["name"] for column in asked.get_columns(table.name, tables.schema)}
        lacking = [column.name for column in table.columns if column.name not in columns]
        if lacking and revision is not None and revision > REVISION:
            return (
                f"the tables in {where} have the newer schema {revision}, without {table.name}."
                f"{', '.join(lacking)}; this version needs {REVISION}: use a newer one"
            )
        if lacking:
            return (
                f"the table {table.name} in {where} has no column {', '.join(lacking)}: it has an"
                f" older schema; {way_out}, or run your own migrations"
            )
    return None
