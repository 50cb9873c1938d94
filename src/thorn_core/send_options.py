"""The options of a send, defined and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypedDict

import attrs

from thorn_core.callables import is_async
from thorn_core.delivery import check_headers
from thorn_core.errors import ConfigurationError
from thorn_core.receipts import Callback, Callbacks
from thorn_core.spelling import nearest
from thorn_core.values import EMPTY

# Maximum duration of a request, in seconds.
LONGEST_TIMEOUT = 3600


class SendArguments(TypedDict, total=False):
    """The keyword arguments of `send` and `asend`, for type checkers and editors."""

    sender: Any
    headers: Mapping[str, str] | None
    context: Mapping[str, Any] | None
    timeout: float | None
    idempotency_key: str | None
    within: Any
    on_success: Callback | None
    on_error: Callback | None
    on_timeout: Callback | None


class ModelSendArguments(SendArguments, total=False):
    """The keyword arguments of a model event's `send` and `asend`."""

    instance: Any


def check_timeout(timeout: float | None) -> float | None:
    """Check the timeout of a request, in seconds.

    Raises:
        ConfigurationError: It isn't a number of seconds, or is too large.
    """
    if timeout is None:
        return None
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= LONGEST_TIMEOUT:
        raise ConfigurationError(
            f"timeout is {timeout!r}; use a number of seconds from 0 to {LONGEST_TIMEOUT}"
        )
    return timeout


def _check_key(options: SendOptions, field: Any, key: Any) -> None:
    if key is not None and (not isinstance(key, str) or not key):
        raise ConfigurationError(
            f"idempotency_key is {key!r}; use a string that identifies the message, such as"
            f" str(order.id), or None"
        )


def _check_context(options: SendOptions, field: Any, context: Any) -> None:
    if not isinstance(context, Mapping):
        raise ConfigurationError(f"context is a {type(context).__name__}; use a mapping")


def _check_callback(options: SendOptions, field: Any, callback: Any) -> None:
    if callback is not None and (not callable(callback) or is_async(callback)):
        raise ConfigurationError(
            f"{field.name} is {callback!r}; use a plain function that takes the attempt"
        )


def _checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    return EMPTY if headers is None else check_headers(headers) or EMPTY


def _context(context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return EMPTY if context is None else context


@attrs.frozen(kw_only=True)
class SendOptions:
    """The options of one send, checked.

    Attributes:
        sender: The user or tenant that the message is about, or its id.
        headers: Extra headers for its requests.
        context: Values that travel with the message but not to recipients.
        timeout: Seconds for a whole request.
        idempotency_key: The same key of the same sender and event sends once.
        within: The transaction handle of an adapter; its commit sends the message.
        on_success: Called with the attempt if the recipient responded with 2xx.
        on_error: Called with the attempt if it failed.
        on_timeout: Called with the attempt after a timeout.

    Raises:
        ConfigurationError: A value isn't allowed.
    """

    sender: Any = None
    headers: Mapping[str, str] = attrs.field(default=EMPTY, converter=_checked_headers)
    context: Mapping[str, Any] = attrs.field(
        default=EMPTY, converter=_context, validator=_check_context
    )
    timeout: float | None = attrs.field(default=None, converter=check_timeout)
    idempotency_key: str | None = attrs.field(default=None, validator=_check_key)
    within: Any = None
    on_success: Callback | None = attrs.field(default=None, validator=_check_callback)
    on_error: Callback | None = attrs.field(default=None, validator=_check_callback)
    on_timeout: Callback | None = attrs.field(default=None, validator=_check_callback)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Check the keyword arguments of a send.

        Raises:
            ConfigurationError: An option is unknown, or its value isn't allowed.

        Example:
            >>> SendOptions.of({"timeuot": 3})
            Traceback (most recent call last):
            thorn_core.errors.ConfigurationError: send has no option timeuot; did you mean timeout?
        """
        known = [field.name for field in attrs.fields(cls)]
        for name in arguments:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near}?" if near else f"available: {', '.join(known)}"
                raise ConfigurationError(f"send has no option {name}; {hint}")
        return cls(**arguments)

    @property
    def callbacks(self) -> Callbacks | None:
        """The callbacks; None if there are none."""
        if self.on_success is self.on_error is self.on_timeout is None:
            return None
        return Callbacks(
            on_success=self.on_success, on_error=self.on_error, on_timeout=self.on_timeout
        )
