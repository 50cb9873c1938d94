"""Event names, and the patterns that match them.

A name consists of words joined by dots. In a pattern, `*` matches exactly one word, at the end one
or more words; `*` alone matches everything.
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
        InvalidNameError: A word is empty or contains other characters than letters, digits, `_` and
            `-`; or there are more than 10 words or 200 characters.

    Example:
        >>> check_name("article.published")
        'article.published'
    """
    if not isinstance(name, str):
        raise _no_text(name, "event name")
    return _checked_name(name)


def check_pattern(pattern: str) -> str:
    """Check a pattern of event names: like `check_name`, but words may be `*`.

    Raises:
        InvalidNameError: The pattern is invalid.

    Example:
        >>> check_pattern("article.*")
        'article.*'
    """
    if not isinstance(pattern, str):
        raise _no_text(pattern, "event pattern")
    return _checked_pattern(pattern)


def check_template(name: str) -> str:
    """Check a name that may contain fields: `user.{.username}`.

    Raises:
        InvalidNameError: The name is invalid.

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


# The patterns of a name of ten words take 110 KiB, of three words less than 1 KiB.
@lru_cache(maxsize=1024)
def candidates(name: str) -> tuple[str, ...]:
    """Return all patterns that match a name, to look them up in an index.

    Args:
        name: The event's name.

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
    # Shorter patterns whose last star matches all remaining words.
    shorter = [""]
    for depth in range(len(words) - 1):
        found += [prefix + "*" for prefix in shorter]
        shorter = [prefix + choice + "." for prefix in shorter for choice in (words[depth], "*")]
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=8192)
def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a name.

    Example:
        >>> matches("article.*", "article.tag.added"), matches("*.created", "article.tag.created")
        (True, False)
    """
    wanted, words = pattern.split("."), name.split(".")
    if len(wanted) > len(words) or (len(wanted) < len(words) and wanted[-1] != "*"):
        return False
    return all(want in ("*", word) for want, word in zip(wanted, words, strict=False))


def has_fields(name: str) -> bool:
    """Return whether a name contains fields, such as `{.username}`."""
    return isinstance(name, str) and "{" in name


def field_paths(name: str) -> list[str]:
    """Return the attributes in the fields of a name.

    Example:
        >>> field_paths("user.{.account.name}.created")
        ['account.name']
    """
    return _FIELD.findall(name)


def fill(template: str, instance: Any) -> str:
    """Replace the fields of a name by an instance's values.

    Args:
        template: A name with fields.
        instance: The instance.

    Returns:
        The name. A field's value becomes one word, with `_` in place of characters that aren't
        allowed. None, also on the path to a nested attribute, becomes `_`.

    Raises:
        AttributeError: The instance has no such attribute.
        InvalidNameError: The resulting name is too long.

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
