"""The caller's open transaction, as Thorn sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class UnitOfWork(Protocol):
    """The caller's open transaction; adapters create it from a Session, Connection or alias.

    Attributes:
        handle: The adapter's original object; stores may write in its transaction.
    """

    handle: Any

    @property
    def open(self) -> bool:
        """True if a transaction is open."""
        ...

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call a function once, right after the commit; never after a rollback.

        The rollback of a savepoint drops the callbacks registered inside it. Without an open
        transaction, the callback runs immediately.
        """
        ...

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call a function that uses the transaction, from async code, without blocking its loop."""
        ...


class ImmediateUnitOfWork:
    """A unit of work without a transaction: every change takes effect immediately."""

    handle: Any = None
    open = False

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call the function now."""
        callback()

    async def run(self, function: Callable[[], T]) -> T:
        """Call the function now."""
        return function()


IMMEDIATE = ImmediateUnitOfWork()
