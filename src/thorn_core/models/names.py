"""Names: the attributes of models that events may use, and checks of their spelling."""

from __future__ import annotations

import dis
import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from thorn_core.errors import ConfigurationError
from thorn_core.ports.model_adapter import ModelNames, NamesOf
from thorn_core.spelling import misspelt, nearest


def check_path(model: type, path: str, names_of: NamesOf, where: str) -> None:
    """Check that a path leads from a class to an attribute.

    Args:
        model: The class at the start.
        path: Names joined by `.` or `__`.
        names_of: The names of each class on the way.
        where: The place of the path, for the error.

    Raises:
        ConfigurationError: A class on the way doesn't have the name; the message suggests the
            nearest.

    Example:
        >>> class Article:
        ...     __slots__ = ("title",)
        >>> check_path(Article, "titel", class_names, "fields")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: fields: Article has no 'titel'; did you mean 'title'?
    """
    cls: type | None = model
    for name in split_path(path):
        if cls is None:
            return
        names = names_of(cls)
        if name in names.leads_to:
            cls = names.leads_to[name]
            continue
        raise_if_unknown(cls, name, names, where)
        return


def raise_if_unknown(cls: type, name: str, names: ModelNames, where: str) -> None:
    """Refuse a name that a class doesn't have; for an open class, only likely misspellings."""
    if isinstance(_static(cls, name), types.FunctionType):
        raise ConfigurationError(
            f"{where}: {cls.__name__}.{name} is a method; name an attribute, or make it a property"
        )
    near = (misspelt if names.open else nearest)(name, names.leads_to)
    if near is not None:
        way_out = f" Else annotate {name!r} in the class." if names.open else ""
        raise ConfigurationError(
            f"{where}: {cls.__name__} has no {name!r}; did you mean {near!r}?{way_out}"
        )
    if not names.open:
        known = ", ".join(name for name in sorted(names.leads_to) if not name.startswith("_"))
        raise ConfigurationError(f"{where}: {cls.__name__} has no {name!r}; it has {known}")


def check_syntax(where: str, path: Any) -> str:
    """Check that a value is a path: names joined by `.` or `__`.

    Raises:
        ConfigurationError: It isn't.
    """
    if isinstance(path, str) and all(name.isidentifier() for name in split_path(path)):
        return path
    raise ConfigurationError(
        f"{where} is {path!r}; name an attribute, 'author', or a path to one, 'author.company'"
    )


def check_optional_path(where: str, path: Any) -> str | None:
    """Like `check_syntax`, but None is allowed."""
    return None if path is None else check_syntax(where, path)


def split_path(path: str) -> list[str]:
    """Split a path into its names, joined by `.` or `__`."""
    return path.replace("__", ".").split(".")


def follow(instance: Any, path: str) -> Any:
    """Return the value at the end of a path; None if a value on the way is None.

    Args:
        instance: The instance at the start.
        path: Names joined by `.` or `__`; keys, for a mapping.

    Raises:
        AttributeError: There is no such attribute.

    Example:
        >>> from types import SimpleNamespace
        >>> follow(SimpleNamespace(author=None), "author.company")
    """
    value = instance
    for name in split_path(path):
        if value is None:
            return None
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    return value


_PASSWORDS = frozenset({"password", "passwd", "passphrase", "pwd", "pw"})
_OF_PASSWORDS = frozenset({*_PASSWORDS, "hash", "hashed", "digest", "salt", "encrypted"})
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")


def looks_secret(name: str) -> bool:
    """Return whether the name suggests a column with passwords or their hashes.

    Example:
        >>> [looks_secret(name) for name in ("password_hash", "oldPassword2", "password_changed")]
        [True, True, False]
    """
    words = [word.lower() for word in _WORD.findall(name)]
    return not _PASSWORDS.isdisjoint(words) and words[-1] in _OF_PASSWORDS


# -- Python's own classes


def class_names(cls: type) -> ModelNames:
    """Return the names of a class's instances, as far as the class declares them.

    These are its annotations, attributes and properties, and the attributes that its methods
    assign. Classes without an instance `__dict__`, such as `str` and classes with slots, have no
    others.

    Args:
        cls: Any class.

    Example:
        >>> class Article:
        ...     def __init__(self, title):
        ...         self.title = title
        >>> "title" in class_names(Article).leads_to
        True
    """
    if issubclass(cls, Mapping) or "__getattr__" in {n for c in cls.__mro__ for n in vars(c)}:
        return ModelNames(open=True)
    found: dict[str, type | None] = {}
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        for name, value in vars(base).items():
            if isinstance(value, types.FunctionType):
                found.update(dict.fromkeys(_assigned(value.__code__)))
            elif not name.startswith("__"):
                found[name] = None
                if isinstance(value, property) and isinstance(value.fget, types.FunctionType):
                    found.update(dict.fromkeys(_assigned(value.fget.__code__)))
        found.update(_annotated(base))
    found.pop("webhooks", None)
    return ModelNames(leads_to=found, open=cls.__dictoffset__ != 0)


def _annotated(cls: type) -> Iterator[tuple[str, type | None]]:
    annotations = vars(cls).get("__annotations__", {})
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # a name that exists for type checkers only
        hints = {}
    for name in annotations:
        yield name, _class_of(hints.get(name))


def _class_of(hint: Any) -> type | None:
    """Return the class of an annotation, `X` or `X | None`; None if it isn't a single class."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = others[0] if len(others) == 1 else None
    plain = isinstance(hint, type) and typing.get_origin(hint) is None
    return hint if plain and hint not in (Any, object) else None


@lru_cache(maxsize=4096)
def _assigned(code: types.CodeType) -> tuple[str, ...]:
    """Return the attributes that a function assigns, such as `title` in `self.title = title`.

    Cached, because models share many methods of their base classes, which are slow to parse.
    """
    found = (i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR")
    return tuple(dict.fromkeys(found))


def _static(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
