"""Lists in a store, read page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from thorn_core.values import Attempt, Delivery, Subscription

PAGE = 500

Item = TypeVar("Item", Subscription, Delivery, Attempt)


def paged(fetch: Callable[[str | None], Sequence[Item]]) -> Iterator[Item]:
    """All of a list, a page at a time.

    Args:
        fetch: Gives the page after an id; None is the first.
    """
    after = None
    while page := fetch(after):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id
