"""Event names, and the patterns that match them.

A name is words joined by dots. In a pattern `*` in the last place stands for one word or more,
elsewhere for exactly one; `*` alone matches everything.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from thorn_core.errors import InvalidNameError

# The number of patterns that can match a name doubles with each word: 1,535 for ten.
MAX_WORDS = 10
# Fits an indexed column of every database.
MAX_LENGTH = 200

_WORD = re.compile(r"[A-Za-z0-9_-]+")
_FIELD = re.compile(r"\{\.([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\}")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")


def check_name(name: str) -> str:
    """Check the name of an event.

    Args:
        name: Words joined by dots.

    Raises:
        InvalidNameError: A word is empty or holds another character than letters, digits, `_` and
            `-`; or there are more than 10 words or 200 characters.

    Example:
        >>> check_name("article.published")
        'article.published'
    """
    if not isinstance(name, str):
        raise _no_text(name, "event name")
    return _checked_name(name)


def check_pattern(pattern: str) -> str:
    """Check a pattern of event names; as `check_name`, but a word may be `*`.

    Raises:
        InvalidNameError: It isn't one.

    Example:
        >>> check_pattern("article.*")
        'article.*'
    """
    if not isinstance(pattern, str):
        raise _no_text(pattern, "event pattern")
    return _checked_pattern(pattern)


def check_template(name: str) -> str:
    """Check a name that may hold fields: `user.{.username}`.

    Raises:
        InvalidNameError: It isn't one.

    Example:
        >>> check_template("user.{.account.name}.created")
        'user.{.account.name}.created'
    """
    if not isinstance(name, str):
        raise _no_text(name, "event name")
    _check(_FIELD.sub("x", name), "event name", wildcard=False, shown=name)
    return name


def _no_text(value: object, kind: str) -> InvalidNameError:
    return InvalidNameError(f"{kind} {value!r} is not a string; use words joined by dots")


@lru_cache(maxsize=4096)
def _checked_name(name: str) -> str:
    _check(name, "event name", wildcard=False)
    return name


@lru_cache(maxsize=4096)
def _checked_pattern(pattern: str) -> str:
    _check(pattern, "event pattern", wildcard=True)
    return pattern


def _check(text: str, kind: str, *, wildcard: bool, shown: str | None = None) -> None:
    shown = text if shown is None else shown
    if len(text) > MAX_LENGTH:
        raise InvalidNameError(
            f"{kind} {shown[:50]!r}… has {len(text)} characters; at most {MAX_LENGTH} are allowed"
        )
    words = text.split(".")
    if len(words) > MAX_WORDS:
        raise InvalidNameError(
            f"{kind} {shown!r} has {len(words)} words; at most {MAX_WORDS} are allowed"
        )
    for word in words:
        if not word:
            raise InvalidNameError(
                f"{kind} {shown!r} has an empty word; put something between the dots"
            )
        if _WORD.fullmatch(word) or (wildcard and word == "*"):
            continue
        bad = next(c for c in word if not _WORD.fullmatch(c))
        if wildcard and bad == "*":
            hint = "'*' must be a whole word"
        elif bad in "{}":
            hint = "a field of a model event's name is written {.attribute}"
        else:
            hint = "use letters, digits, _ and -"
        raise InvalidNameError(f"{kind} {shown!r} holds {bad!r}; {hint}")


# A name of ten words has 110 KiB of them, one of three less than 1.
@lru_cache(maxsize=1024)
def candidates(name: str) -> tuple[str, ...]:
    """Every pattern that matches a name, each once: what an index is asked for.

    Args:
        name: Of an event.

    Example:
        >>> candidates("a.b")
        ('a.b', 'a.*', '*.b', '*.*', '*')
    """
    words = name.split(".")
    found: list[str] = []
    prefixes = [""]
    for word in words[:-1]:
        prefixes = [prefix + choice + "." for prefix in prefixes for choice in (word, "*")]
    for prefix in prefixes:
        found += (prefix + words[-1], prefix + "*")
    # Shorter ones that end in a star, which stands for all the rest.
    shorter = [""]
    for depth in range(len(words) - 1):
        found += [prefix + "*" for prefix in shorter]
        shorter = [prefix + choice + "." for prefix in shorter for choice in (words[depth], "*")]
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=8192)
def matches(pattern: str, name: str) -> bool:
    """True if a pattern matches a name.

    Example:
        >>> matches("article.*", "article.tag.added"), matches("*.created", "article.tag.created")
        (True, False)
    """
    wanted, words = pattern.split("."), name.split(".")
    if len(wanted) > len(words) or (len(wanted) < len(words) and wanted[-1] != "*"):
        return False
    return all(want in ("*", word) for want, word in zip(wanted, words, strict=False))


def has_fields(name: str) -> bool:
    """True if a name holds fields, `{.username}`."""
    return isinstance(name, str) and "{" in name


def field_paths(name: str) -> list[str]:
    """The attributes that the fields of a name stand for.

    Example:
        >>> field_paths("user.{.account.name}.created")
        ['account.name']
    """
    return _FIELD.findall(name)


def fill(template: str, instance: Any) -> str:
    """Put an instance's values into the fields of a name.

    Args:
        template: A name with fields.
        instance: Where the values come from.

    Returns:
        The name; what a field brings in is one word, its foreign characters `_`. None, also on the
        way to a nested attribute, becomes `_`.

    Raises:
        AttributeError: The instance has no such attribute.
        InvalidNameError: The name is too long now.

    Example:
        >>> from types import SimpleNamespace
        >>> fill("user.{.name}.created", SimpleNamespace(name="ada.l@example.com"))
        'user.ada_l_example_com.created'
    """

    def word(match: re.Match[str]) -> str:
        value = instance
        for attribute in match[1].split("."):
            value = None if value is None else getattr(value, attribute)
        return _FOREIGN.sub("_", "" if value is None else str(value)) or "_"

    return check_name(_FIELD.sub(word, template))
