"""Recipients take turns: deliveries that are due, queued up by recipient and merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

# What identifies a delivery, and a recipient.
K = TypeVar("K")
R = TypeVar("R")


def queue_up(
    due: Iterable[tuple[K, R]], *, per_recipient: int, busy: Mapping[R, int]
) -> list[list[K]]:
    """Queue deliveries up, each recipient's by itself, as many as it may have.

    Args:
        due: Ids and recipients, in order.
        per_recipient: How many of a recipient may be under way.
        busy: How many are.

    Example:
        >>> queue_up([("a", "x"), ("b", "x"), ("c", "y")], per_recipient=2, busy={"x": 1})
        [['a'], ['c']]
    """
    queues: dict[R, list[K]] = {}
    for key, recipient in due:
        queue = queues.setdefault(recipient, [])
        if len(queue) < per_recipient - busy.get(recipient, 0):
            queue.append(key)
    return list(queues.values())


def take_turns(queues: Sequence[Sequence[K]], limit: int) -> list[K]:
    """Take the first of each queue, then the second of each, so many at most.

    Example:
        >>> take_turns([["a", "b"], ["c"]], 10)
        ['a', 'c', 'b']
    """
    turns = (key for turn in zip_longest(*queues) for key in turn if key is not None)
    return list(islice(turns, limit))
