"""Iteration over a store's lists, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from thorn_core.values import Attempt, Delivery, Subscription

PAGE = 500

Item = TypeVar("Item", Subscription, Delivery, Attempt)


def paged(fetch: Callable[[str | None], Sequence[Item]]) -> Iterator[Item]:
    """Yield all items of a list; fetch them page by page.

    Args:
        fetch: Returns the page after an id, or the first page for None.
    """
    after = None
    while page := fetch(after):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id
