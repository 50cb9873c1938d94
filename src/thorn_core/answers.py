"""Checks of values from plugins, factories and settings; errors suggest the nearest name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from thorn_core.codecs import Envelope
from thorn_core.errors import ConfigurationError
from thorn_core.spelling import nearest

T = TypeVar("T")

# RFC 9110 8.3.1, without parameters.
_CONTENT_TYPE = re.compile(r"[!#$&^_.+0-9A-Za-z-]+/[!#$&^_.+0-9A-Za-z-]+")


def near(name: object, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known name, or all known names.

    Example:
        >>> near("inlien", ["inline", "outbox"]), near("x", ["outbox", "inline"])
        ("did you mean 'inline'?", 'available: inline, outbox')
    """
    names = sorted(known)
    found = nearest(str(name), names)
    return f"did you mean {found!r}?" if found else f"available: {', '.join(names)}"


def made(value: T, port: Any, where: str) -> T:
    """Check the object that a factory returned.

    Args:
        value: The object.
        port: The protocol that it must implement.
        where: The factory, for error messages: `the factory of the store 'redis'`.

    Returns:
        The object.

    Raises:
        ConfigurationError: It doesn't implement the protocol; the error names the missing members.

    Example:
        >>> from thorn_core.ports.dispatcher import Dispatcher
        >>> made(None, Dispatcher, "the factory")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: the factory returned None, which is not a Dispatcher
    """
    if inspect.isclass(value):
        raise ConfigurationError(f"{where} returned the class {value!r}; return an instance")
    lacking = lacks(value, port)
    if not lacking:
        return value
    some = len(lacking) < len(_members(port))
    ending = f"; it lacks {', '.join(lacking)}" if some else ""
    raise ConfigurationError(f"{where} returned {value!r}, which is not a {port.__name__}{ending}")


def lacks(value: Any, port: Any) -> list[str]:
    """Return the members of a protocol that a value lacks."""
    return [name for name in _members(port) if not hasattr(value, name)]


def _members(port: Any) -> list[str]:
    # A protocol may extend others.
    parts = [part for part in port.__mro__ if getattr(part, "_is_protocol", False)]
    names = {
        name for part in parts for name in (*vars(part), *vars(part).get("__annotations__", {}))
    }
    return sorted(name for name in names if not name.startswith("_"))


def check_plugins(given: Any) -> Iterable[Any]:
    """Check that an app's plugins are a list of objects or modules.

    Raises:
        ConfigurationError: They aren't, or a plugin is a class, a string or None.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigurationError(f"plugins is {given!r}; use a list of plugins")
    for plugin in (plugins := tuple(given)):
        if inspect.isclass(plugin):
            raise ConfigurationError(f"plugin {plugin!r} is a class; pass an instance")
        if plugin is None or isinstance(plugin, str | bytes | int | float):
            raise ConfigurationError(
                f"plugin {plugin!r} is not a plugin; use an object or a module"
            )
    return plugins


def check_transport(make: Any) -> Callable[[], Any]:
    """Check an app's transport factory: a callable without arguments.

    Raises:
        ConfigurationError: It isn't callable.
    """
    if callable(make):
        return cast("Callable[[], Any]", make)
    raise ConfigurationError(
        f"transport is {make!r}; use a function that creates a transport; it is called on the"
        f" event loop that will use it"
    )


def check_mapping(answer: Any, where: str, check: Callable[[str, Any, str], None]) -> None:
    """Check a mapping of names to objects that a plugin returned.

    Args:
        answer: The returned value.
        where: The hook and the plugin, for error messages.
        check: Called with `where`, each name and its value; raises if they are invalid.

    Raises:
        ConfigurationError: It isn't a mapping, or a name or a value is invalid.
    """
    if not isinstance(answer, Mapping):
        raise ConfigurationError(f"{where} returned {answer!r}; it must return a mapping of names")
    for name, value in answer.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{where} returned the name {name!r}; names must be strings")
        check(name, value, where)


def check_factory(name: str, value: Any, where: str) -> None:
    """Check that a name's value is a factory."""
    if not callable(value):
        raise ConfigurationError(
            f"{where} returned {value!r} for {name!r}; it must return a factory"
        )


def check_codec(content_type: str, codec: Any, where: str) -> None:
    """Check that a codec takes an envelope and returns bytes, by calling it with an empty payload.

    Args:
        content_type: Its content type.
        codec: The codec.
        where: Where it is configured, for error messages: `setting codecs`.

    Raises:
        ConfigurationError: It doesn't, for example because it was written for Thorn 1.x.

    Example:
        >>> check_codec("text/x", lambda envelope: repr(envelope).encode(), "setting codecs")
    """
    check_content_type(content_type, codec, where)
    envelope = Envelope(fields={"event": "thorn.test", "ref": None}, data=b"{}")
    try:
        given: Any = codec(envelope)
    except Exception as error:
        if not isinstance(error, TypeError) and getattr(error, "obj", None) is not envelope:
            return  # it needs a payload that isn't empty
        fault = f"fails: {error}"
    else:
        if isinstance(given, bytes):
            return
        fault = f"returns a {type(given).__name__}"
    raise ConfigurationError(
        f"{where} has a codec for {content_type!r} that {fault}; a codec takes an Envelope,"
        f" encodes its document() and returns bytes"
    )


def check_content_type(content_type: Any, value: Any, where: str) -> None:
    """Check that a name is a content type, and that its value is callable."""
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise ConfigurationError(
            f"{where} names the content type {content_type!r}; write type/subtype, as in"
            " 'application/xml'"
        )
    if not callable(value):
        raise ConfigurationError(
            f"{where} has {value!r} for {content_type!r}, which is not callable; use a function"
        )
