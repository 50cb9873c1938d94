"""The SQL store on SQLAlchemy engines."""

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
    """Keeps all data in a database that SQLAlchemy supports.

    Args:
        source: The URL of the database with a synchronous driver, or your own Engine.
        prefix: The prefix of the tables' names.
        schema: The database schema of the tables; None is the default schema.
        tables: Tables in your own metadata, from `define_tables`; replaces prefix and schema.
        aliases: Further URLs of the same database, such as a pooler's. A session on one of them
            stores its messages in its own transaction.

    Raises:
        ConfigurationError: The URL is invalid, its driver is asynchronous or not installed, or the
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
        """The engine; it logs statements without their parameters."""
        return self.executor.engine

    def create(self) -> str | None:
        """Create the tables, or migrate them to this version's schema (`thorn init-db`).

        Returns:
            The previous version of the schema, or None if there was none.

        Raises:
            StoreSetupError: Existing tables don't fit this version.
            StoreError: The database reports an error.
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
        # Alembic imports slowly, and few processes migrate.
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
        """Store messages for routing: in the caller's transaction, if it is in this database.

        If the transaction is in another database, the store writes the messages after its commit.
        That isn't atomic, so the store logs a warning.

        Raises:
            StoreError: The database reports an error.
            ConfigurationError: The transaction has ended, or is asynchronous and used without
                `await`.
        """
        publish = partial(super().publish, messages, within=within, written=written)
        if not within.open:
            off_loop(publish)
            return
        if in_async_session():
            # This uses one of the store's connections, which may block.
            with self.database.translating():
                off_loop(self.database.locate)
        publish()
