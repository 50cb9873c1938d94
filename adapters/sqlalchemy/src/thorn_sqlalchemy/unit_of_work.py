"""Units of work of a Session or a Connection, synchronous or asynchronous."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy import Connection, Engine, Table, event, update
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import (
    InvalidRequestError,
    PendingRollbackError,
    UnboundExecutionError,
)
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.pool import Pool

from thorn_core import ConfigurationError
from thorn_sqlalchemy.engines import FOLLOWING, OneConnection, shown
from thorn_sqlalchemy.greenlets import in_async_session, off_loop

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

logger = logging.getLogger(__name__)
T = TypeVar("T")
Callback = Callable[[], None]
Runner = Callable[[Callable[[], Any]], Awaitable[Any]]

INFO = "thorn"


def unit_of_work(handle: Any) -> SqlUnitOfWork | None:
    """Return the unit of work of a transaction handle; None if it isn't SQLAlchemy's.

    Args:
        handle: A Session or Connection, also an asynchronous or scoped one.
    """
    if isinstance(handle, scoped_session):
        handle = handle()
    if isinstance(handle, Session):
        return SessionUnitOfWork(handle, handle)
    if isinstance(handle, Connection):
        return ConnectionUnitOfWork(handle, handle)
    return _asynchronous(handle)


def _asynchronous(handle: Any) -> SqlUnitOfWork | None:
    # The import needs greenlet, which is installed only with asynchronous SQLAlchemy.
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return None
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    if isinstance(handle, async_scoped_session):
        handle = handle()
    if isinstance(handle, AsyncSession):
        return SessionUnitOfWork(handle, handle.sync_session, _greenlet(handle))
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


def _check_awaited(handle: Any, runner: Runner) -> None:
    """Refuse calls that would fail half-way and leave the connection in an undefined state."""
    if runner is not _directly and not in_async_session():
        raise ConfigurationError(
            f"within={handle!r} is asynchronous; use: await event.asend(..., within=…)"
        )


def _call(callbacks: list[Callback]) -> None:
    """Call a function without blocking the event loop of an asynchronous session.

    Log exceptions: the transaction has already committed.
    """
    for callback in callbacks:
        try:
            off_loop(callback)
        except Exception:
            logger.exception("an after-commit callback failed")


# -- sessions


@attrs.define
class _Pending:
    """The callbacks that wait for a session's commit.

    Attributes:
        callbacks: The callbacks in the order of their registration.
        marks: The number of callbacks at the beginning of each savepoint.
        committed: Whether the transaction has been committed and is about to end.
        outer: A program's connection, whose transaction the session may have joined.
    """

    callbacks: list[Callback] = attrs.field(factory=list)
    marks: dict[SessionTransaction, int] = attrs.field(factory=dict)
    committed: bool = False
    outer: Connection | None = None


class SessionUnitOfWork:
    """The open transaction of a Session.

    Args:
        handle: The user's object.
        session: The Session behind the handle.
        runner: Calls a function from async code where it can use the session.
    """

    open = True

    def __init__(self, handle: Any, session: Session, runner: Runner = _directly) -> None:
        self.handle = handle
        self._session = session
        self._bind = session.bind
        self._run = runner

    def __eq__(self, other: object) -> bool:
        # Messages in the same transaction are published together.
        return isinstance(other, SessionUnitOfWork) and self._session is other._session

    def __hash__(self) -> int:
        return id(self._session)

    @property
    def place(self) -> str:
        """The location of the session's database."""
        bind = self._session.get_bind()
        return shown(bind.engine.url)

    def connection(self, table: Table, here: Callable[[Engine], bool]) -> Connection | None:
        """Return the transaction's connection if it is in the store's database, else None.

        Args:
            table: One of Thorn's tables.
            here: Returns True for an engine of that database.

        Raises:
            ConfigurationError: It doesn't know its database, its transaction has ended, or it is
                asynchronous and used without `await`.
        """
        _check_awaited(self.handle, self._run)
        try:
            # Sessions with replicas may read from another database.
            bind = self._session.get_bind(clause=update(table))
            if not here(bind.engine):
                return None
            self._bind = bind
            return self._session.connection(bind_arguments={"bind": bind})
        except UnboundExecutionError as error:
            raise ConfigurationError(
                f"within={self.handle!r} doesn't know which database has Thorn's tables; bind it"
                f" to one, or add the tables to its binds (store.tables)"
            ) from error
        except PendingRollbackError:
            raise
        except InvalidRequestError as error:
            raise ConfigurationError(
                f"the transaction of within={self.handle!r} has ended ({error}); send before the"
                " commit, or without within"
            ) from error

    def on_commit(self, callback: Callback) -> None:
        """Call a function right after the commit of the outermost transaction.

        Raises:
            ConfigurationError: It is asynchronous and used without `await`.
        """
        _check_awaited(self.handle, self._run)
        session = self._session
        if not session.in_transaction():
            session.begin()
        pending = session.info.get(INFO)
        if pending is None:
            pending = session.info[INFO] = _Pending()
        if isinstance(self._bind, Connection):
            pending.outer = self._bind
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
        # A savepoint without a mark began before the first callback, so it contains all callbacks.
        del pending.callbacks[pending.marks.pop(transaction, 0) :]
    elif transaction.parent is None:
        del session.info[INFO]


def _committed(session: Session) -> None:
    pending = session.info.get(INFO)
    if pending is None:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        pending.committed = True
    else:
        pending.marks.pop(savepoint, None)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(INFO)
    if pending is None:
        return
    # Only now the connection is back in its pool.
    if transaction.parent is None:
        del session.info[INFO]
        if pending.committed and pending.outer is not None and pending.outer.in_transaction():
            # Nothing is committed: the session has joined a transaction of the program.
            unit = ConnectionUnitOfWork(pending.outer, pending.outer)
            for callback in pending.callbacks:
                unit.on_commit(callback)
        elif pending.committed:
            _call(pending.callbacks)


event.listen(Session, "after_transaction_create", _savepoint_began)
event.listen(Session, "after_soft_rollback", _rolled_back)
event.listen(Session, "after_commit", _committed)
event.listen(Session, "after_transaction_end", _ended)


# -- connections


class _Watch:
    """The callbacks that wait for a Connection's commit.

    SQLAlchemy announces a commit before it happens. The commit is certain when the connection
    begins another transaction or returns to its pool.
    """

    def __init__(self, connection: Connection) -> None:
        # The callbacks, each with the number of its savepoint.
        self._callbacks: list[tuple[int, Callback]] = []
        self._committed = False
        event.listen(connection, "begin", self._over)
        event.listen(connection, "begin_twophase", self._over)
        event.listen(connection, "commit", self._commits)
        event.listen(connection, "commit_twophase", self._commits)
        event.listen(connection, "rollback", self._rolls_back)
        event.listen(connection, "rollback_twophase", self._rolls_back)
        event.listen(connection, "rollback_savepoint", self._rolls_back_to)
        if not event.contains(connection.dialect, "handle_error", _failed):
            event.listen(connection.dialect, "handle_error", _failed)

    def add(self, connection: Connection, callback: Callback) -> None:
        inside = connection.get_nested_transaction()
        # The event of a new savepoint doesn't contain its name.
        number = 0 if inside is None else _number(inside._savepoint)
        self._callbacks.append((number, callback))
        only = isinstance(connection.engine.pool, OneConnection)
        connection.info[FOLLOWING if only else INFO] = self

    def failed(self) -> None:
        """Handle a failed statement: a failed commit means that there was none."""
        if self._committed:
            self._committed = False
            self._callbacks.clear()

    def over(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        committed, self._committed = self._committed, False
        if committed:
            _call([callback for _, callback in callbacks])

    def _over(self, connection: Connection, *_: Any) -> None:
        for name in (INFO, FOLLOWING):
            connection.info.pop(name, None)
        self.over()

    def _commits(self, connection: Connection, *_: Any) -> None:
        self._committed = True

    def _rolls_back(self, connection: Connection, *_: Any) -> None:
        self._callbacks.clear()
        self._committed = False

    def _rolls_back_to(self, connection: Connection, name: str, context: None) -> None:
        # Numbers only increase, so nested savepoints have higher numbers.
        until = _number(name)
        self._callbacks = [(n, callback) for n, callback in self._callbacks if n < until]


def _number(savepoint: str) -> int:
    """Return the number in SQLAlchemy's savepoint name, such as `sa_savepoint_12`."""
    return int(savepoint.rpartition("_")[2])


def _failed(context: ExceptionContext) -> None:
    watch = None if context.connection is None else _watches.get(context.connection)
    if watch is not None:
        watch.failed()


_watches: WeakKeyDictionary[Connection, _Watch] = WeakKeyDictionary()


def _returned(dbapi_connection: Any, record: Any) -> None:
    watch = record.info.pop(INFO, None)
    if watch is not None:
        watch.over()


event.listen(Pool, "checkin", _returned)


class ConnectionUnitOfWork:
    """The open transaction of a Connection.

    Args:
        handle: The user's object.
        connection: The Connection behind the handle.
        runner: Calls a function from async code where it can use the connection.
    """

    open = True

    def __init__(self, handle: Any, connection: Connection, runner: Runner = _directly) -> None:
        self.handle = handle
        self._connection = connection
        self._run = runner

    def __eq__(self, other: object) -> bool:
        # Messages in the same transaction are published together.
        return isinstance(other, ConnectionUnitOfWork) and self._connection is other._connection

    def __hash__(self) -> int:
        return id(self._connection)

    @property
    def place(self) -> str:
        """The location of the connection's database."""
        return shown(self._connection.engine.url)

    def connection(self, table: Table, here: Callable[[Engine], bool]) -> Connection | None:
        """Return the connection if it goes to the store's database, else None.

        Args:
            table: One of Thorn's tables.
            here: Returns True for an engine of that database.

        Raises:
            ConfigurationError: It is closed, or asynchronous and used without `await`.
        """
        _check_awaited(self.handle, self._run)
        if self._connection.closed:
            raise ConfigurationError(
                f"the transaction of within={self.handle!r} has ended: its connection is"
                " closed; send before that, or without within"
            )
        return self._connection if here(self._connection.engine) else None

    def on_commit(self, callback: Callback) -> None:
        """Call a function once the transaction has committed.

        That is certain when the connection begins another transaction or returns to its pool.

        Raises:
            ConfigurationError: It is asynchronous and used without `await`.
        """
        _check_awaited(self.handle, self._run)
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


# The units of work whose transactions a store on SQLAlchemy can use.
SqlUnitOfWork = SessionUnitOfWork | ConnectionUnitOfWork
