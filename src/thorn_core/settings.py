"""Settings: an app's configuration, checked when it is created."""

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
    """Convert the list of recipient validators of a setting or an event to validators.

    Args:
        name: The setting's name, for the error.
        value: Validators, callables taking a URL, or lists such as `("ensure_port", 80, 443)`.

    Raises:
        ConfigurationError: An item is none of these.
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
        # Without the value, which may contain secrets.
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
    """An app's configuration; `THORN_<NAME>` in a framework's settings or the environment.

    Durations are seconds, or a `timedelta`.

    Attributes:
        dispatcher: Name of the dispatcher, which runs the engine after a send.
        event_timeout: Maximum seconds for a whole request.
        connect_timeout: Maximum seconds to open a connection.
        retry: False makes only one attempt.
        retry_max: Number of retries, instead of the policy's schedule.
        retry_delay: Seconds between these retries.
        retry_policy: Delays between attempts.
        allow_redirects: Follow up to five redirects; validate each hop, and refuse redirects from
            https to http.
        allowed_networks: Internal networks with permitted recipients, in CIDR notation: exceptions
            to `block_internal_ips()`.
        allowed_ports: Permitted ports of recipients besides 80 and 443: numbers, and ranges such
            as `range(8000, 9000)` or `"8000-8999"`.
        recipient_validators: Validators of recipients' URLs and addresses, instead of the default
            ones; `validators` contains the effective ones.
        imports: Modules that declare events, by dotted name; workers import them.
        subscribers: Static subscribers: event pattern to URL, list, mapping, or callable.
        codecs: More codecs, by content type.
        signatures: Names of the schemes that sign requests.
        envelope: The envelope of payloads: `thorn`, `standard`, `cloudevents`, or `bare` for none.
        sign_audience: Put the recipient's URL into the envelope, as `audience`, so that recipients
            can refuse webhooks signed for another URL.
        event_source: The `source` of CloudEvents, a URI reference.
        event_choices: Patterns that subscriptions are limited to; empty allows all.
        signal_honors_transaction: Model events wait for the commit.
        sender_required: Refuse to send an event without a sender, which every owner's subscriptions
            would receive.
        payload_limit: Maximum bytes of a payload's JSON.
        response_limit: Bytes kept of a response's body.
        retry_after_max: Maximum seconds of a `Retry-After` header.
        disable_after: Seconds of failed attempts only, after which a subscription is disabled; None
            never disables it.
        secret_overlap: Seconds that a rotated secret keeps signing.
        inline_timeout: Maximum seconds that a send with the dispatcher `inline` waits; remaining
            deliveries continue in the background.
        concurrency: Maximum requests in flight per process.
        recipient_concurrency: Maximum requests in flight per subscription.
        chunksize: Number of deliveries per claim, and of subscriptions per chunk of routing.
        unrecorded: Maximum attempts per process that are in flight or not yet in the store; they
            are repeated if the process is killed.
        lease: Seconds after which other workers take over a dead worker's deliveries.
        poll_interval: Seconds between polls of a store that can't wake its workers.
        grace_period: Seconds that requests in flight may take to finish at a stop.
        history: Maximum finished deliveries in the memory store.
        user_agent: The `User-Agent` header.
        base_url: Base of the paths in events' `ref`: `https://example.com`.
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

    # Needs neither a server nor a worker, as in Thorn 1.x.
    dispatcher: str = _setting("inline", _text)
    # Standard Webhooks asks senders to wait 15 to 30 s.
    event_timeout: float = _setting(15.0, _seconds(0.001, 3600))
    # A SYN lost twice is retransmitted within 3 s.
    connect_timeout: float = _setting(5.0, _seconds(0.001, 600))
    retry: bool = _setting(True, _switch)
    retry_max: int | None = _setting(None, _whole(0, 1000, optional=True))
    retry_delay: float | None = _setting(None, _seconds(0, 30 * 86400, optional=True))
    retry_policy: RetryPolicy = _setting(attrs.Factory(RetryPolicy), _policy)
    # A redirect can lead from a public URL to an internal one.
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
    # The limit of common cloud queues; send a reference to larger objects.
    payload_limit: int = _setting(256 * 1024, _whole(1, 64 * 1024 * 1024))
    # Enough for the start of an error page; recipients can log the rest.
    response_limit: int = _setting(8192, _whole(0, 1024 * 1024))
    retry_after_max: float = _setting(86400.0, _seconds(0, 30 * 86400))
    disable_after: float | None = _setting(5 * 86400.0, _seconds(1, 365 * 86400, optional=True))
    secret_overlap: float = _setting(86400.0, _seconds(0, 365 * 86400))
    # A quarter of the usual limit of 1,024 open files.
    # A third of the timeout of a request, because a send may block a web request.
    inline_timeout: float = _setting(5.0, _seconds(0, 3600))
    concurrency: int = _setting(256, _whole(1, 100_000))
    # Fits the thread pool of a small recipient.
    recipient_concurrency: int = _setting(16, _whole(1, 100_000))
    chunksize: int = _setting(250, _whole(1, 10_000))
    unrecorded: int = _setting(1000, _whole(1, 100_000))
    # Four times the timeout of a request; renewed after a third of it while work continues.
    lease: float = _setting(60.0, _seconds(1, 86400))
    poll_interval: float = _setting(1.0, _seconds(0.01, 3600))
    # Less than the 30 s after which process managers kill a process.
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
        """The effective recipient validators, with `allowed_networks` and `allowed_ports`.

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
        """The policy from `retry`, `retry_max`, `retry_delay` and `retry_policy`."""
        return choose_policy(self.retry, self.retry_max, self.retry_delay, self.retry_policy)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, and check it.

        Args:
            **changes: New values by name.

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
        """Read the settings with `THORN_` names from a mapping, such as the environment.

        Args:
            mapping: Names to values. A string is parsed as JSON if the setting isn't a string.
            prefix: The prefix of the names.
            dotted: Import subscribers, codecs and validators given by dotted paths, such as
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
    """Return the policy from the three retry options and a policy."""
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


# Settings that accept dotted paths, and a test for strings that aren't dotted paths.
_NAMED = ("SUBSCRIBERS", "CODECS", "RECIPIENT_VALIDATORS")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def _imported(setting: str, value: Any) -> Any:
    """Replace the dotted paths in a setting's value by the imported objects."""
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
