"""Recipients take turns: due deliveries wait in one queue per recipient and are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

# Identifies a delivery, and a recipient.
K = TypeVar("K")
R = TypeVar("R")


def queue_up(
    due: Iterable[tuple[K, R]], *, per_recipient: int, busy: Mapping[R, int]
) -> list[list[K]]:
    """Return a queue of deliveries per recipient, as long as the recipient's limit allows.

    Args:
        due: Ids and recipients of due deliveries, in order.
        per_recipient: The maximum number of deliveries in flight to a recipient.
        busy: The number of deliveries in flight by recipient.

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
    """Take the first of each queue, then the second of each, up to a limit.

    Example:
        >>> take_turns([["a", "b"], ["c"]], 10)
        ['a', 'c', 'b']
    """
    turns = (key for turn in zip_longest(*queues) for key in turn if key is not None)
    return list(islice(turns, limit))
