"""Spelling: the known name that an unknown one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like an unknown one, for an error message; None if none is like it.

    Example:
        >>> nearest("stat", ["title", "state"])
        'state'
    """
    names = sorted(set(known))
    squeezed = {_squeezed(other): other for other in reversed(names)}
    if _squeezed(name) in squeezed:
        return squeezed[_squeezed(name)]
    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def misspelt(name: str, known: Iterable[str], *, plurals: bool = False) -> str | None:
    """The known name that a name is almost certainly a misspelling of; None if there is none.

    Almost: another case or other underscores, or one letter added, left out, replaced or swapped
    with its neighbour; two from eight letters on.

    Args:
        name: The name.
        known: The names there are.
        plurals: Take `tag` for a misspelling of `tags`, too.

    Example:
        >>> misspelt("auhtor", ["author"]), misspelt("senderfield", ["sender_field"])
        ('author', 'sender_field')
        >>> misspelt("tag", ["tags"]), misspelt("state", ["status"])
        (None, None)
    """
    if name in (known := sorted(set(known))):
        return None
    allowed = 2 if len(name) >= 8 else 1
    for other in known:
        if _squeezed(name) == _squeezed(other):
            return other
        plural = not plurals and (name == f"{other}s" or other == f"{name}s")
        if not plural and min(len(name), len(other)) > 2 and edits(name, other) <= allowed:
            return other
    return None


def edits(one: str, other: str) -> int:
    """How many letters were added, left out, replaced, or swapped with a neighbour.

    The optimal string alignment distance.

    Example:
        >>> edits("titel", "title"), edits("state", "status")
        (1, 2)
    """
    if abs(len(one) - len(other)) > 2:
        return max(len(one), len(other))
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]


def _squeezed(name: str) -> str:
    return name.replace("_", "").lower()
