"""Spelling: known names similar to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to an unknown one, for error messages; None if none is.

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
    """Return the known name of which a name is almost certainly a misspelling; None if none.

    A misspelling differs in case or underscores, or by one letter that is added, omitted, replaced
    or swapped with its neighbour; by two letters in names of eight letters or more.

    Args:
        name: The name.
        known: The known names.
        plurals: Also treat `tag` as a misspelling of `tags`.

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
    """Return the number of letters added, omitted, replaced, or swapped with a neighbour.

    This is the optimal string alignment distance.

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
