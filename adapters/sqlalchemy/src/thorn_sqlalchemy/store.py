"""The SQL store on SQLAlchemy's engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import URL, Engine, MetaData

from thorn_core import Message, StoreSetupError, UnitOfWork
from thorn_core.ports.store import Written
from thorn_core.stores import sql
from thorn_core.stores.sql.schema import PREFIX, VERSION
from thorn_core.stores.sql.setup import alone, version_of
from thorn_core.stores.sql.statements import Statements
from thorn_sqlalchemy.connections import DriverConnection
from thorn_sqlalchemy.executor import SqlAlchemyExecutor
from thorn_sqlalchemy.greenlets import in_async_session, off_loop
from thorn_sqlalchemy.tables import Tables, define_tables


class SqlStore(sql.SqlStore):
    """Keeps everything in a database that SQLAlchemy speaks to.

    Args:
        source: The URL of the database, with a synchronous driver; or an Engine of yours.
        prefix: What the tables' names begin with.
        schema: The database schema that they are in; None is the default one.
        tables: Tables defined in a metadata of yours, by `define_tables`, in place of both.
        aliases: Further URLs of the same database, such as a pooler's: what a session on one of
            them sends is kept in its transaction.

    Raises:
        ConfigurationError: The URL isn't one, its driver isn't installed or is asynchronous, or the
            database isn't supported.

    Example:
        >>> from thorn_core import Thorn
        >>> with Thorn(store=SqlStore("sqlite://"), dispatcher="outbox") as app:
        ...     subscription = app.subscribe("article.*", "https://example.com/hook")
        ...     app.subscription(subscription.id).events
        ('article.*',)
    """

    def __init__(
        self,
        source: str | URL | Engine,
        *,
        prefix: str = PREFIX,
        schema: str | None = None,
        tables: Tables | None = None,
        aliases: Sequence[str | URL] = (),
    ) -> None:
        self.tables = tables or define_tables(MetaData(), prefix=prefix, schema=schema)
        table = self.tables.messages
        self.executor = SqlAlchemyExecutor(source, aliases=aliases, table=table)
        super().__init__(self.executor, prefix=self.tables.prefix, schema=self.tables.schema)

    @property
    def engine(self) -> Engine:
        """The engine: its statements are logged without their parameters."""
        return self.executor.engine

    def create(self) -> str | None:
        """Create the tables, or bring them up to this version's schema (`thorn init-db`).

        Returns:
            The version of the schema that was there before; None if there was none.

        Raises:
            StoreSetupError: There are tables that this version doesn't fit.
            StoreError: The database can't do it.
        """
        with self.database.translating():
            self.database.locate()
            with self.executor.reading() as connection:
                before = version_of(Statements(connection, self.database.wording))
        if before is None or before == VERSION:
            return super().create()
        self._migrate(before)
        return before

    def _migrate(self, before: str) -> None:
        # Alembic is slow to import, and few processes migrate.
        from alembic.util import CommandError

        from thorn_sqlalchemy.migrations import upgrade

        try:
            with self.database.translating(), self.executor.begin() as connection:
                statements = Statements(DriverConnection(connection), self.database.wording)
                with alone(statements):
                    upgrade(connection, self.tables)
        except CommandError as error:
            raise StoreSetupError(
                f"the tables in {self.executor.place} have schema {before}, which can't be"
                f" migrated to {VERSION}: {error}; use the version of Thorn that created them"
            ) from error

    def publish(
        self, messages: Sequence[Message], *, within: UnitOfWork, written: Written | None = None
    ) -> None:
        """Keep messages to be routed: in the caller's transaction, if it is in this database.

        The transaction of another database can't hold them: they are kept once it has committed,
        which isn't atomic, and a warning says so.

        Raises:
            StoreError: The database can't do it.
            ConfigurationError: The transaction is over, or is used without awaiting.
        """
        publish = partial(super().publish, messages, within=within, written=written)
        if not within.open:
            off_loop(publish)
            return
        if in_async_session():
            # It uses a connection of the store's own, which may block.
            with self.database.translating():
                off_loop(self.database.locate)
        publish()
