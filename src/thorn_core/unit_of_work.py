"""The caller's open transaction, as far as Thorn needs to know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class UnitOfWork(Protocol):
    """The caller's open transaction; an adapter makes one of its Session, Connection or alias.

    Attributes:
        handle: What the adapter made it of. A store that can write in that very transaction does.
    """

    handle: Any

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back once, right after the transaction has committed; never if it rolls back.

        A savepoint counts: what was registered inside one that is rolled back is not called.
        Without an open transaction the callback runs at once.
        """
        ...

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call a function that uses the transaction, from async code, without blocking its loop."""
        ...


class ImmediateUnitOfWork:
    """No transaction: what is done is done."""

    handle: Any = None

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back now."""
        callback()

    async def run(self, function: Callable[[], T]) -> T:
        """Call the function now."""
        return function()


IMMEDIATE = ImmediateUnitOfWork()


@runtime_checkable
class HoldableUnitOfWork(UnitOfWork, Protocol):
    """A unit of work of whatever transaction is open in the calling thread when it is asked.

    By the time a buffer is flushed that may be another one, or none.
    """

    def hold(self) -> UnitOfWork:
        """The unit of work of the transaction that is open now, whatever comes after it.

        While that is open, what is published goes into it; after its commit, it is as good as done;
        after its rollback, nothing is published and nobody is called back.
        """
        ...
