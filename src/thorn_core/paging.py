"""Lists in a store, read page by page."""

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
    """Iterate over a whole list, one page at a time.

    Args:
        fetch: Returns the page after a place; None for the first page.
        place: Returns the place of an item.
    """
    after = None
    while page := fetch(after):
        yield from page
        if len(page) < PAGE:
            return
        after = place(page[-1])
