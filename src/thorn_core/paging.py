"""Lists of what a store holds, read by the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from thorn_core.values import Attempt, Delivery, Subscription

PAGE = 500

Item = TypeVar("Item", Subscription, Delivery, Attempt)


def paged(
    fetch: Callable[[Any], Sequence[Item]], place: Callable[[Item], Any] = attrgetter("id")
) -> Iterator[Item]:
    """All of a list, a page at a time.

    Args:
        fetch: Gives the page after a place; None is the first.
        place: The place of an item.
    """
    after = None
    while page := fetch(after):
        yield from page
        if len(page) < PAGE:
            return
        after = place(page[-1])
