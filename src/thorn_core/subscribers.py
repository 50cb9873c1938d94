"""Checks of static subscribers at their declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thorn_core.callables import is_async
from thorn_core.errors import ConfigurationError, SecurityError
from thorn_core.recipients import parse_url
from thorn_core.spelling import nearest
from thorn_core.values import Subscription

# Options in a static subscriber's mapping, besides the URL.
OPTIONS = (
    "secret",
    "content_type",
    "hmac_digest",
    "headers",
    "description",
    "rate_limit",
    "owner",
)


def check_subscribers(name: str, target: Any) -> Any:
    """Check the static subscribers of an event.

    Validators check later whether requests to a URL are permitted.

    Args:
        name: The place of the declaration, for the error.
        target: A URL, a mapping with a `url`, a Subscription, a callable that takes the message, or
            an iterable of these.

    Returns:
        The target; a list for an iterable.

    Raises:
        ConfigurationError: A subscriber is invalid.

    Example:
        >>> check_subscribers("subscribers", ["https://example.com/hook"])
        ['https://example.com/hook']
    """
    if isinstance(target, Subscription):
        _check_recipient_url(name, target.url)
    elif isinstance(target, str):
        _check_recipient_url(name, target)
    elif isinstance(target, Mapping):
        url = target.get("url")
        if not isinstance(url, str):
            near = nearest("url", [key for key in target if isinstance(key, str)])
            hint = f"did you mean {near!r} to be 'url'?" if near else "add one"
            raise ConfigurationError(f"{name} contains {_names(target)} without a 'url'; {hint}")
        _check_recipient_url(name, url)
        check_options(name, target)
    elif callable(target):
        _check_callable(name, target)
    elif isinstance(target, Iterable) and not isinstance(target, bytes | bytearray):
        return [check_subscribers(name, each) for each in target]
    else:
        raise ConfigurationError(
            f"{name} contains a {type(target).__name__}, which is not a subscriber; use a"
            f" URL, a"
            " mapping with a 'url', a callable that takes the message, or a list of these"
        )
    return target


def check_options(name: str, mapping: Mapping[Any, Any]) -> None:
    """Check the options in a static subscriber's mapping.

    Raises:
        ConfigurationError: It has an unknown option.
    """
    for option in mapping:
        if option not in ("url", *OPTIONS):
            near = nearest(str(option), OPTIONS)
            hint = f"did you mean {near}?" if near else f"available: url, {', '.join(OPTIONS)}"
            raise ConfigurationError(
                f"{name} contains a mapping with the option {option!r}; {hint}"
            )


def _names(mapping: Mapping[Any, Any]) -> str:
    # Without the values, which include the secret.
    return "a mapping of " + (", ".join(map(repr, mapping)) or "nothing")


def _check_recipient_url(name: str, url: str) -> None:
    try:
        parse_url(url)
    except SecurityError as error:
        raise ConfigurationError(f"{name} contains an invalid recipient. {error}") from None


def _check_callable(name: str, function: Callable[..., Any]) -> None:
    if is_async(function):
        raise ConfigurationError(
            f"{name} holds {function!r}, a coroutine function, and subscribers aren't awaited; make"
            " it a plain function"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a callable written in C may not have any
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigurationError(
            f"{name} contains {function!r}, which can't be called with only the message; let it"
            f" take one argument"
        ) from None
