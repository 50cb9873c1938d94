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

    @property
    def open(self) -> bool:
        """True if a transaction is open, which what is done now belongs to."""
        ...

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
    open = False

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back now."""
        callback()

    async def run(self, function: Callable[[], T]) -> T:
        """Call the function now."""
        return function()


IMMEDIATE = ImmediateUnitOfWork()
