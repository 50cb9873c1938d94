"""Settings: every choice an app makes, checked when it is made."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from thorn_core import recipients
from thorn_core.answers import check_codec
from thorn_core.errors import ConfigurationError
from thorn_core.patterns import check_pattern
from thorn_core.retries import RetryPolicy
from thorn_core.spelling import nearest
from thorn_core.subscribers import check_subscribers

ENVELOPES = ("thorn", "standard", "cloudevents", "bare")
VALIDATOR_FACTORIES: Mapping[str, Callable[..., Any]] = {
    "block_internal_ips": recipients.block_internal_ips,
    "ensure_protocol": recipients.ensure_protocol,
    "ensure_port": recipients.ensure_port,
    "block_cidr_network": recipients.block_cidr_network,
    "allow_cidr_network": recipients.allow_cidr_network,
}
# Variables that share the prefix but aren't settings.
_NOT_SETTINGS = ("APP", "STORE", "TEST_", "REQUIRE_")
_RENAMED = {"hmac_signer": "signatures", "recipient_validator": "recipient_validators"}

Converter = Callable[[str, Any], Any]


def _refuse(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"setting {name} is {value!r}; use {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _seconds(
    least: float, most: float, *, optional: bool = False
) -> Callable[[str, Any], float | None]:
    def convert(name: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if not _is_number(value) or not least <= value <= most:
            ending = ", or None" if optional else ""
            raise _refuse(name, value, f"a number of seconds from {least:g} to {most:g}{ending}")
        return float(value)

    return convert


def _whole(least: int, most: int, *, optional: bool = False) -> Callable[[str, Any], int | None]:
    def convert(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        if not _is_number(value) or value != int(value) or not least <= value <= most:
            ending = ", or None" if optional else ""
            raise _refuse(name, value, f"a whole number from {least} to {most}{ending}")
        return int(value)

    return convert


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse(name, value, "True or False")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _refuse(name, value, "a non-empty string")
    return value


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _base_url(name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = _text(name, value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise _refuse(name, value, "a URL like 'https://example.com', or None")
    return text


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def convert(name: str, value: Any) -> str:
        if value not in choices:
            raise _refuse(name, value, "one of " + ", ".join(map(repr, choices)))
        return str(value)

    return convert


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _refuse(name, value, "a list of strings")
    return tuple(_text(name, item) for item in value)


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    return tuple(check_pattern(item) for item in _texts(name, value))


def _modules(name: str, value: Any) -> tuple[str, ...]:
    modules = _texts(name, value)
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise _refuse(name, value, "a list of dotted module names, such as 'shop.events'")
    return modules


def _anything(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _refuse(name, value, "a list")
    return tuple(value)


def _networks(name: str, value: Any) -> tuple[recipients.Network, ...]:
    allowed = 'a list of networks in CIDR notation, such as ["10.1.0.0/16", "fd12::/48"]'
    return _each(recipients.as_network, name, value, allowed)


def _ports(name: str, value: Any) -> tuple[recipients.Ports, ...]:
    allowed = 'a list of ports and ranges, such as [8080, range(9000, 9100), "8000-8999"]'
    if isinstance(value, range):
        value = [value]
    return _each(recipients.as_ports, name, value, allowed)


def _each(read: Callable[[Any], Any], name: str, value: Any, allowed: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _refuse(name, value, allowed)
    items = tuple(value)
    try:
        return tuple(map(read, items))
    except ValueError as error:
        raise _refuse(name, list(items), f"{allowed}; it contains {error}") from None


def check_validators(name: str, value: Any) -> tuple[Any, ...]:
    """Turn a setting's or an event's list of recipient validators into validators.

    Args:
        name: Of the setting, for the error.
        value: Validators, callables taking a URL, or lists such as `("ensure_port", 80, 443)`.

    Raises:
        ConfigurationError: One is none of these.
    """
    return tuple(_validator(name, item) for item in _anything(name, value))


def _validator(name: str, item: Any) -> Any:
    """Accept a validator, a callable, or Thorn 1.x's `("ensure_port", 80, 443)`."""
    if isinstance(item, str):
        item = (item,)
    if isinstance(item, list | tuple):
        factory = VALIDATOR_FACTORIES.get(item[0]) if item else None
        if factory is None:
            known = ", ".join(sorted(VALIDATOR_FACTORIES))
            raise _refuse(
                name,
                item,
                f"a validator, or a list with the name of one ({known}) and its arguments",
            )
        return factory(*item[1:])
    return recipients.as_validator(item)


def _subscribers(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        # Without the value: it may hold secrets.
        raise ConfigurationError(
            f"setting {name} is a {type(value).__name__}; use a mapping of event pattern to"
            " URL, list, mapping or callable"
        )
    return {
        check_pattern(pattern): check_subscribers(f"setting {name}[{pattern!r}]", target)
        for pattern, target in value.items()
    }


def _codecs(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(name, value, "a mapping of content type to codec")
    for content_type, codec in value.items():
        check_codec(content_type, codec, f"setting {name}")
    return dict(value)


def _policy(name: str, value: Any) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise _refuse(name, value, "a RetryPolicy")
    return value


def _setting(default: Any, convert: Converter, *, secret: bool = False) -> Any:
    return attrs.field(
        default=default,
        repr=not secret,
        converter=attrs.Converter(
            lambda value, field: convert(field.name, value), takes_field=True
        ),
    )


@attrs.frozen(kw_only=True, init=False)
class Settings:
    """Every choice an app makes; `THORN_<NAME>` in a framework's configuration or the environment.

    Durations are seconds, or a `timedelta`.

    Attributes:
        dispatcher: Who runs the engine after a send, by name.
        event_timeout: Seconds for a whole request.
        connect_timeout: Seconds to open a connection.
        retry: False makes one attempt only.
        retry_max: How many retries, in place of the policy's schedule.
        retry_delay: Seconds between those.
        retry_policy: When to try again.
        allow_redirects: Follow up to five redirects, each hop validated again, and none from https
            to http.
        allowed_networks: Internal networks that recipients may be in all the same: exceptions to
            `block_internal_ips()`, in CIDR notation.
        allowed_ports: Ports that recipients may use beside 80 and 443: numbers, and ranges such
            as `range(8000, 9000)` or `"8000-8999"`.
        recipient_validators: What a recipient's URL and addresses must pass, in place of the
            default protection; `validators` has those in force.
        imports: Modules that declare events, by dotted name; workers import them.
        subscribers: Static subscribers: event pattern to URL, list, mapping, or callable.
        codecs: More codecs, by content type.
        signatures: Names of the schemes that sign requests.
        envelope: How a payload is wrapped: `thorn`, `standard`, `cloudevents`, or `bare` (not).
        sign_audience: Put the recipient's URL into the envelope, as `audience`, so that a recipient
            can refuse what was signed for another.
        event_source: The `source` of CloudEvents, a URI reference.
        event_choices: Patterns that subscriptions are limited to; empty allows all.
        signal_honors_transaction: Model events wait for the commit.
        sender_required: Refuse to send an event without a sender, which every owner's subscriptions
            would receive.
        payload_limit: Bytes of a payload's JSON at most.
        response_limit: Bytes kept of a response's body.
        retry_after_max: Seconds that a `Retry-After` is honoured at most.
        disable_after: Seconds that all attempts have failed before a subscription is disabled;
            None: never.
        secret_overlap: Seconds that a rotated secret goes on signing.
        inline_timeout: Seconds that a send with the dispatcher `inline` waits at most, in all;
            the rest of the deliveries goes on in the background.
        concurrency: Requests under way at once in a process.
        recipient_concurrency: Of those, how many for one subscription.
        chunksize: Deliveries claimed, and subscriptions matched, at once.
        lease: Seconds before a dead worker's deliveries are taken over.
        poll_interval: Seconds between looks at a store that can't wake its workers.
        grace_period: Seconds that requests under way are given to end at a stop.
        history: Finished deliveries that the memory store keeps.
        user_agent: The `User-Agent` header.
        base_url: What the paths in events' `ref` are relative to: `https://example.com`.
        subscriber_model: Django: the subscription model, `app.Model`.
        drf_permission_classes: Django REST framework: permission classes of the resource.

    Raises:
        ConfigurationError: A name is unknown or a value isn't allowed.

    Example:
        >>> Settings(event_timeout=3).event_timeout
        3.0
        >>> Settings(retri=False)
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: unknown setting retri; did you mean retry?
    """

    # Works with no server and no worker, as in Thorn.
    dispatcher: str = _setting("inline", _text)
    # Standard Webhooks asks senders to wait 15 to 30 s.
    event_timeout: float = _setting(15.0, _seconds(0.001, 3600))
    # A SYN lost twice is retransmitted within 3 s.
    connect_timeout: float = _setting(5.0, _seconds(0.001, 600))
    retry: bool = _setting(True, _switch)
    retry_max: int | None = _setting(None, _whole(0, 1000, optional=True))
    retry_delay: float | None = _setting(None, _seconds(0, 30 * 86400, optional=True))
    retry_policy: RetryPolicy = _setting(attrs.Factory(RetryPolicy), _policy)
    # A redirect is how a public URL becomes an internal one.
    allow_redirects: bool = _setting(False, _switch)
    allowed_networks: tuple[recipients.Network, ...] = _setting((), _networks)
    allowed_ports: tuple[recipients.Ports, ...] = _setting((), _ports)
    recipient_validators: tuple[Any, ...] = _setting(
        recipients.DEFAULT_VALIDATORS, check_validators
    )
    imports: tuple[str, ...] = _setting((), _modules)
    subscribers: Mapping[str, Any] = _setting(attrs.Factory(dict), _subscribers, secret=True)
    codecs: Mapping[str, Any] = _setting(attrs.Factory(dict), _codecs)
    signatures: tuple[str, ...] = _setting(("standard-webhooks", "hook-hmac"), _texts)
    envelope: str = _setting("thorn", _one_of(*ENVELOPES))
    sign_audience: bool = _setting(False, _switch)
    event_source: str = _setting("thorn", _text)
    event_choices: tuple[str, ...] = _setting((), _patterns)
    signal_honors_transaction: bool = _setting(True, _switch)
    sender_required: bool = _setting(False, _switch)
    # What the common cloud queues carry; larger things are better sent as a reference.
    payload_limit: int = _setting(256 * 1024, _whole(1, 64 * 1024 * 1024))
    # Enough for any error page's beginning; the rest is the recipient's to log.
    response_limit: int = _setting(8192, _whole(0, 1024 * 1024))
    retry_after_max: float = _setting(86400.0, _seconds(0, 30 * 86400))
    disable_after: float | None = _setting(5 * 86400.0, _seconds(1, 365 * 86400, optional=True))
    secret_overlap: float = _setting(86400.0, _seconds(0, 365 * 86400))
    # A quarter of the usual limit of 1,024 open files.
    # A third of the timeout of a request: whoever sends in a web request is waited for as well.
    inline_timeout: float = _setting(5.0, _seconds(0, 3600))
    concurrency: int = _setting(256, _whole(1, 100_000))
    # What a small recipient's thread pool stands.
    recipient_concurrency: int = _setting(16, _whole(1, 100_000))
    chunksize: int = _setting(100, _whole(1, 10_000))
    # Four times the timeout of a request; renewed at a third while work goes on.
    lease: float = _setting(60.0, _seconds(1, 86400))
    poll_interval: float = _setting(1.0, _seconds(0.01, 3600))
    # Below the 30 s after which process managers kill.
    grace_period: float = _setting(10.0, _seconds(0, 3600))
    history: int = _setting(10_000, _whole(0, 100_000_000))
    user_agent: str = _setting("Thorn/2.0", _text)
    base_url: str | None = _setting(None, _base_url)
    subscriber_model: str | None = _setting(None, _optional_text)
    drf_permission_classes: tuple[Any, ...] = _setting(
        ("rest_framework.permissions.IsAuthenticated",), _anything
    )

    def __init__(self, **values: Any) -> None:
        for name in values:
            _check_name(name)
        self.__attrs_init__(**values)
        if self.lease <= self.event_timeout:
            raise ConfigurationError(
                f"setting lease is {self.lease:g} s, and event_timeout {self.event_timeout:g} s;"
                " a lease must be longer than a request can take"
            )
        if (self.retry_max is None) != (self.retry_delay is None):
            raise ConfigurationError(
                f"settings retry_max ({self.retry_max}) and retry_delay ({self.retry_delay})"
                " go together; set both, or a retry_policy"
            )
        if self.allowed_ports and self.recipient_validators != recipients.DEFAULT_VALIDATORS:
            raise ConfigurationError(
                "setting allowed_ports adds ports to the default recipient_validators, but"
                " recipient_validators is set too; name all ports in its ensure_port(…) and leave"
                " allowed_ports out"
            )

    @cached_property
    def validators(self) -> tuple[Any, ...]:
        """The recipient validators in force; `allowed_networks` and `allowed_ports` are in them.

        Example:
            >>> Settings(allowed_ports=["8000-8999"]).validators[-1]
            EnsurePort(ports=(80, 443, range(8000, 9000)))
        """
        return recipients.complete_validators(
            self.recipient_validators,
            allowed_networks=self.allowed_networks,
            allowed_ports=self.allowed_ports,
        )

    @property
    def effective_retry_policy(self) -> RetryPolicy:
        """The policy that `retry`, `retry_max`, `retry_delay` and `retry_policy` come to."""
        return choose_policy(self.retry, self.retry_max, self.retry_delay, self.retry_policy)

    def evolve(self, **changes: Any) -> Self:
        """These settings with some of them changed, checked again.

        Args:
            **changes: By name.

        Raises:
            ConfigurationError: A name is unknown or a value isn't allowed.

        Example:
            >>> Settings(retry=False).evolve(event_timeout=3).retry
            False
        """
        return type(self)(**{**attrs.asdict(self, recurse=False), **changes})

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], *, prefix: str = "THORN_", dotted: bool = False
    ) -> Self:
        """Read the settings among a mapping's `THORN_` names, as of a framework or the environment.

        Args:
            mapping: Names to values. A text that is a setting of another kind is read as JSON.
            prefix: What the names of settings begin with.
            dotted: Import the subscribers, codecs and validators that are named by a dotted path,
                `shop.hooks.recipients`.

        Raises:
            ConfigurationError: A name is unknown, or a value isn't allowed or can't be imported.

        Example:
            >>> Settings.from_mapping({"THORN_RETRY": "false", "HOME": "/"}).retry
            False
            >>> named = {"THORN_CODECS": {"text/x": "thorn_core.codecs.encode_form"}}
            >>> Settings.from_mapping(named, dotted=True).codecs["text/x"].__name__
            'encode_form'
        """
        values = {}
        for key, value in mapping.items():
            name = key.removeprefix(prefix)
            if name == key or name.startswith(_NOT_SETTINGS):
                continue
            value = _from_text(name.lower(), value)
            values[name.lower()] = _imported(key, value) if dotted and name in _NAMED else value
        return cls(**values)


def choose_policy(
    retry: bool | None,  # noqa: FBT001 - a setting's value, not a switch of this function
    retry_max: int | None,
    retry_delay: float | None,
    policy: RetryPolicy | None,
) -> RetryPolicy:
    """The policy that Thorn's three retry options and a policy come to."""
    if retry is False:
        return RetryPolicy.never()
    if retry_max is not None and retry_delay is not None:
        return RetryPolicy.constant(retry_delay, retry_max)
    return policy or RetryPolicy()


def _check_name(name: str) -> None:
    known = [field.name for field in attrs.fields(Settings)]
    if name in known:
        return
    near = _RENAMED.get(name) or nearest(name, known)
    hint = f"did you mean {near}?" if near else f"available: {', '.join(known)}"
    raise ConfigurationError(f"unknown setting {name}; {hint}")


def _from_text(name: str, value: Any) -> Any:
    _check_name(name)
    field = attrs.fields_dict(Settings)[name]
    if not isinstance(value, str) or isinstance(field.default, str):
        return value
    try:
        value = json.loads(value)
    except ValueError:
        return value
    return RetryPolicy(value) if name == "retry_policy" else value


# Settings whose values may be named by a dotted path, and not be URLs, names of validators …
_NAMED = ("SUBSCRIBERS", "CODECS", "RECIPIENT_VALIDATORS")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def _imported(setting: str, value: Any) -> Any:
    """What a setting holds, with what it names by a dotted path in its place."""
    if isinstance(value, Mapping):
        return {key: _named(setting, target) for key, target in value.items()}
    return value if isinstance(value, str) else _named(setting, value)


def _named(setting: str, value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_named(setting, item) for item in value]
    if not isinstance(value, str) or not _DOTTED.fullmatch(value):
        return value
    module, _, attribute = value.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{setting} names {value!r}, which can't be imported: {error}"
        ) from error
