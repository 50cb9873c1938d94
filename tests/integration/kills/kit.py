"""The kit: what a store adds to the programs that are killed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from thorn_core import Settings, Thorn

# Does the programs some harm, and says how often.
Harm = Callable[[random.Random], int]


class Abandoned(Exception):
    """Raised by a writer to roll a transaction or a savepoint back."""


class Kit(Protocol):
    """How programs use a store; travels to their processes, so it can be pickled.

    Attributes:
        most: Messages of one transaction at most.
        lease: Seconds of a worker's lease: longer than it may have to wait for the store, for else
            it loses it though it lives.
        rate: Messages a second of one writer at most: between faults, work is to be done.
        errors: What a writer may meet when its connection is broken; it goes on.
        modules: What its programs import.
    """

    most: int
    lease: float
    rate: int
    errors: tuple[type[Exception], ...]
    modules: tuple[str, ...]

    def prepare(self) -> None:
        """Create the tables: the store's, and that of the truth."""
        ...

    def app(self, settings: Settings, *, number: int = 0, dispatcher: str = "outbox") -> Thorn:
        """An app on the store; `number` chooses among the ways there are to make it."""
        ...

    def work(self, app: Thorn) -> None:
        """Be a worker of an app's until told to stop."""
        ...

    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction of a program's own: commits at the end, or rolls back on an exception.

        Gives what `within=` takes.
        """
        ...

    def savepoint(self, handle: Any) -> AbstractContextManager[Any]:
        """A savepoint of that transaction, which ends likewise."""
        ...

    def note(self, handle: Any, key: str, message_id: str, event: str) -> None:
        """In that transaction: write into the table of the truth that a message was sent."""
        ...

    def count(self) -> int:
        """How many messages the truth has."""
        ...

    def truth(self) -> Mapping[str, tuple[str, str]]:
        """Message id to key and event of what has committed."""
        ...

    def harms(self) -> Mapping[str, Harm]:
        """What can be done to the programs beside killing them, by its name."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
