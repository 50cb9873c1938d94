"""`thorn init-db`: create the tables, or bring them up to this version's schema."""

from __future__ import annotations

import os

import click

from thorn_core import ConfigurationError
from thorn_core.cli import find_app
from thorn_core.stores.sql.schema import PREFIX
from thorn_sqlalchemy.migrations import script
from thorn_sqlalchemy.store import SqlStore


@click.command("init-db")
@click.option("--store", "url", metavar="URL", help="Database URL, instead of the app's.")
@click.option("--prefix", help=f"With --store: prefix of the table names, if not {PREFIX}.")
@click.option("--schema", help="With --store: database schema of the tables.")
@click.option(
    "--sql", "as_sql", is_flag=True, help="Print the SQL for a new database without running it."
)
@click.pass_obj
def init_db(
    app_path: str | None, url: str | None, prefix: str | None, schema: str | None, *, as_sql: bool
) -> None:
    """Create the tables, or migrate them.

    The database is that of --app, of --store or of the variable THORN_STORE, which keeps a password
    out of the list of processes. Running it again changes nothing.
    """
    url = url or (None if app_path else os.environ.get("THORN_STORE"))
    if url is None and (prefix is not None or schema is not None):
        raise click.UsageError("--prefix and --schema need --store; an app's store has its own")
    if url is not None:
        store = SqlStore(url, prefix=PREFIX if prefix is None else prefix, schema=schema)
        try:
            _run(store, as_sql=as_sql)
        finally:
            store.close()
        return
    if not app_path:
        raise click.UsageError(
            "init-db needs a database: thorn --app module:attribute init-db, or"
            " --store postgresql+psycopg://user@host/name"
        )
    with find_app(app_path) as app:
        if not isinstance(app.store, SqlStore):
            raise ConfigurationError(
                f"--app {app_path} has the store {app.store!r}, which has no tables to create"
            )
        _run(app.store, as_sql=as_sql)


def _run(store: SqlStore, *, as_sql: bool) -> None:
    if as_sql:
        click.echo(script(store.engine.dialect.name, store.tables), nl=False)
    else:
        click.echo(f"{store.executor.place}: {_set_up(store)}")


def _set_up(store: SqlStore) -> str:
    """Create or migrate, and say what that was."""
    before = store.create()
    after = store.version()
    if after is None:
        return "up to date by your own migrations; nothing to do"
    if before is None:
        return f"created the tables, schema {after}"
    if before == after:
        return f"already up to date, schema {after}"
    return f"migrated {before} → {after}"
