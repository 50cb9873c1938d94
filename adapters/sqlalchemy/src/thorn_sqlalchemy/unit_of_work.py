"""Units of work: a Session or a Connection, synchronous or not, as Thorn sees it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy.exc import MissingGreenlet, UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.pool import Pool

from sqlalchemy import Connection, Engine, Table, event
from thorn_core import ConfigurationError
from thorn_sqlalchemy.database import Database, shown

logger = logging.getLogger(__name__)
T = TypeVar("T")
Callback = Callable[[], None]
Runner = Callable[[Callable[[], Any]], Awaitable[Any]]

INFO = "thorn"


@runtime_checkable
class SqlUnitOfWork(Protocol):
    """A unit of work that a store on SQLAlchemy can write in.

    Attributes:
        handle: What it was made of.
    """

    handle: Any

    @property
    def place(self) -> str:
        """Where its database is, for people."""
        ...

    def connection(self, table: Table, database: Database) -> Connection | None:
        """The connection of the transaction, if that is in a database; else None."""
        ...

    def on_commit(self, callback: Callback) -> None:
        """Call back right after the transaction has committed."""
        ...

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call a function that uses the transaction, from async code."""
        ...


def unit_of_work(handle: Any) -> SqlUnitOfWork | None:
    """The unit of work of a transaction handle; None if it isn't SQLAlchemy's.

    Args:
        handle: A Session, a Connection, their asynchronous and scoped kinds.
    """
    if isinstance(handle, scoped_session | async_scoped_session):
        handle = handle()
    if isinstance(handle, Session):
        return SessionUnitOfWork(handle, handle)
    if isinstance(handle, AsyncSession):
        return SessionUnitOfWork(handle, handle.sync_session, _greenlet(handle))
    if isinstance(handle, Connection):
        return ConnectionUnitOfWork(handle, handle)
    if isinstance(handle, AsyncConnection):
        if handle.sync_connection is None:
            raise ConfigurationError(f"within={handle!r} isn't connected yet; await it first")
        return ConnectionUnitOfWork(handle, handle.sync_connection, _greenlet(handle))
    return None


async def _directly(function: Callable[[], Any]) -> Any:
    return function()


def _greenlet(handle: AsyncSession | AsyncConnection) -> Runner:
    async def run(function: Callable[[], Any]) -> Any:
        return await handle.run_sync(lambda _: function())

    return run


def _call(callbacks: list[Callback]) -> None:
    """Call back. What has committed has committed: what goes wrong here is logged."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("what was to follow a commit failed")


# -- sessions


@attrs.define
class _Pending:
    """What waits for a session's commit.

    Attributes:
        callbacks: In the order they came.
        marks: How many there were when a savepoint began.
        committed: The transaction has been committed, and is about to end.
    """

    callbacks: list[Callback] = attrs.field(factory=list)
    marks: dict[SessionTransaction, int] = attrs.field(factory=dict)
    committed: bool = False


class SessionUnitOfWork:
    """The open transaction of a Session.

    Args:
        handle: What the user has.
        session: The Session behind it.
        runner: Calls a function where the session may be used, from async code.
    """

    def __init__(self, handle: Any, session: Session, runner: Runner = _directly) -> None:
        self.handle = handle
        self._session = session
        self._run = runner

    @property
    def place(self) -> str:
        """Where its database is."""
        bind = self._session.get_bind()
        return shown(bind.engine.url)

    def connection(self, table: Table, database: Database) -> Connection | None:
        """The connection of the transaction, if that is in a database; else None.

        Raises:
            ConfigurationError: An AsyncSession is used without awaiting, or has no database.
        """
        where = {"clause": table}
        try:
            engine: Engine = self._session.get_bind(**where).engine  # type: ignore[arg-type]
            if not database.same_as(engine):
                return None
            return self._session.connection(bind_arguments=where)
        except UnboundExecutionError as error:
            raise ConfigurationError(
                f"within={self.handle!r} doesn't know which database Thorn's tables are in; bind it"
                " to one, or name the tables among its binds (store.tables)"
            ) from error
        except MissingGreenlet as error:
            raise ConfigurationError(
                f"within={self.handle!r} is asynchronous; use: await event.asend(..., within=…)"
            ) from error

    def on_commit(self, callback: Callback) -> None:
        """Call back right after the outermost transaction has committed."""
        session = self._session
        if not session.in_transaction():
            session.begin()
        pending = session.info.get(INFO)
        if pending is None:
            pending = session.info[INFO] = _Pending()
        pending.callbacks.append(callback)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the session."""
        return await self._run(function)  # type: ignore[no-any-return]


def _savepoint_began(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(INFO)
    if pending is not None and transaction.nested:
        pending.marks[transaction] = len(pending.callbacks)


def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(INFO)
    if pending is None:
        return
    if transaction.nested:
        # One without a mark was open before anything waited: all of it came inside.
        del pending.callbacks[pending.marks.pop(transaction, 0) :]
    elif transaction.parent is None:
        del session.info[INFO]


def _committed(session: Session) -> None:
    pending = session.info.get(INFO)
    if pending is not None and not session.in_nested_transaction():
        pending.committed = True


def _ended(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(INFO)
    if pending is None:
        return
    pending.marks.pop(transaction, None)
    # Only now the connection is back in its pool, for others to use.
    if transaction.parent is None:
        del session.info[INFO]
        if pending.committed:
            _call(pending.callbacks)


event.listen(Session, "after_transaction_create", _savepoint_began)
event.listen(Session, "after_soft_rollback", _rolled_back)
event.listen(Session, "after_commit", _committed)
event.listen(Session, "after_transaction_end", _ended)


# -- connections


class _Watch:
    """What waits for a Connection's commit.

    SQLAlchemy tells of a commit before it happens. That it has happened is seen when the
    connection begins another transaction or goes back to its pool.
    """

    def __init__(self, connection: Connection) -> None:
        self._callbacks: list[Callback] = []
        self._marks: dict[str, int] = {}
        self._committed = False
        event.listen(connection, "begin", self._over)
        event.listen(connection, "begin_twophase", self._over)
        event.listen(connection, "commit", self._commits)
        event.listen(connection, "commit_twophase", self._commits)
        event.listen(connection, "rollback", self._rolls_back)
        event.listen(connection, "rollback_twophase", self._rolls_back)
        event.listen(connection, "savepoint", self._savepoint)
        event.listen(connection, "rollback_savepoint", self._rolls_back_to)

    def add(self, connection: Connection, callback: Callback) -> None:
        self._callbacks.append(callback)
        connection.info[INFO] = self

    def over(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        committed, self._committed = self._committed, False
        self._marks.clear()
        if committed:
            _call(callbacks)

    def _over(self, connection: Connection, *_: Any) -> None:
        connection.info.pop(INFO, None)
        self.over()

    def _commits(self, connection: Connection, *_: Any) -> None:
        self._committed = True

    def _rolls_back(self, connection: Connection, *_: Any) -> None:
        self._callbacks.clear()
        self._committed = False

    def _savepoint(self, connection: Connection, name: str) -> None:
        self._marks[name] = len(self._callbacks)

    def _rolls_back_to(self, connection: Connection, name: str, context: None) -> None:
        # One without a mark was open before anything waited: all of it came inside.
        del self._callbacks[self._marks.pop(name, 0) :]


_watches: WeakKeyDictionary[Connection, _Watch] = WeakKeyDictionary()


def _returned(dbapi_connection: Any, record: Any) -> None:
    watch = record.info.pop(INFO, None)
    if watch is not None:
        watch.over()


event.listen(Pool, "checkin", _returned)


class ConnectionUnitOfWork:
    """The open transaction of a Connection.

    Args:
        handle: What the user has.
        connection: The Connection behind it.
        runner: Calls a function where the connection may be used, from async code.
    """

    def __init__(self, handle: Any, connection: Connection, runner: Runner = _directly) -> None:
        self.handle = handle
        self._connection = connection
        self._run = runner

    @property
    def place(self) -> str:
        """Where its database is."""
        return shown(self._connection.engine.url)

    def connection(self, table: Table, database: Database) -> Connection | None:
        """The connection, if it goes to a database; else None."""
        return self._connection if database.same_as(self._connection.engine) else None

    def on_commit(self, callback: Callback) -> None:
        """Call back once the transaction has committed.

        That is seen when the connection begins another one or goes back to its pool.
        """
        connection = self._connection
        if not connection.in_transaction():
            connection.begin()
        watch = _watches.get(connection)
        if watch is None:
            watch = _watches[connection] = _Watch(connection)
        watch.add(connection, callback)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the connection."""
        return await self._run(function)  # type: ignore[no-any-return]
