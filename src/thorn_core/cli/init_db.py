"""`thorn init-db`: create a store's tables, or bring them up to this version's schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import safe
from thorn_core.errors import ConfigurationError
from thorn_core.plugins import Plugins
from thorn_core.ports.store import Store, WithTables
from thorn_core.settings import Settings


@click.command("init-db")
@click.option(
    "--store",
    "url",
    metavar="URL",
    envvar="THORN_STORE",
    help="Database URL, for a database that no --app names (or set THORN_STORE).",
)
@click.option(
    "--sql", "as_sql", is_flag=True, help="Print the SQL for a new database without running it."
)
@click.pass_context
def init_db(context: click.Context, url: str | None, *, as_sql: bool) -> None:
    """Create the tables, or migrate them.

    --app, --store or the environment variable THORN_STORE names the database; the variable keeps a
    password out of the list of processes. Running the command again is safe.
    """
    from_environment = context.get_parameter_source("url") is click.core.ParameterSource.ENVIRONMENT
    if context.obj and from_environment:
        url = None
    with _store(context.obj, url) as store:
        if not isinstance(store, WithTables):
            raise ConfigurationError(f"{store!r} has no tables to create")
        if as_sql:
            click.echo(store.script(), nl=False)
        else:
            click.echo(safe(f"{store.place}: {_set_up(store)}"))


@contextmanager
def _store(app_path: str | Callable[[], Thorn] | None, url: str | None) -> Iterator[Store]:
    if url is not None:
        store = Plugins().store(url, Settings())
        try:
            yield store
        finally:
            store.close()
        return
    if not app_path:
        raise click.UsageError(
            "init-db needs a database: thorn --app module:attribute init-db, or"
            " --store sqlite:///thorn.db"
        )
    with find_app(app_path) as app:
        yield app.store


def _set_up(store: WithTables) -> str:
    """Create or migrate the tables; return a description of the result."""
    before = store.create()
    after = store.version()
    if after is None:
        return "up to date by your own migrations; nothing to do"
    if before is None:
        return f"created the tables, schema {after}"
    if before == after:
        return f"already up to date, schema {after}"
    return f"migrated {before} → {after}"
