"""Findings: configuration that is permitted, but probably not intended.

Django's system checks, `thorn check` and the log at startup show them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from thorn_core.errors import SecurityError
from thorn_core.events import (
    Event,
    all_declared_events,
    declared_events,
    unknown_dispatcher,
)
from thorn_core.ports.app import App
from thorn_core.recipients import (
    Network,
    check_url,
    complete_validators,
    is_internal_network,
    open_networks,
    opens_metadata,
)
from thorn_core.recipients.urls import shown
from thorn_core.recipients.validators import OWN_VALIDATORS, AllowNetworks
from thorn_core.settings import Settings
from thorn_core.values import Subscription

logger = logging.getLogger(__name__)

ALL_ADDRESSES = ("0.0.0.0/0", "::/0")


FindingName = Literal[
    "internal-addresses-open",
    "metadata-open",
    "store-not-ready",
    "subscriber-refused",
    "unknown-dispatcher",
    "unsigned",
    "useless-exception",
]


@attrs.frozen(kw_only=True)
class Finding:
    """A questionable part of a configuration.

    Attributes:
        name: The kind of finding.
        setting: The setting, in lower case; None for an event's declaration.
        message: What is wrong.
        hint: What to do.
    """

    name: FindingName
    setting: str | None
    message: str
    hint: str


def check_settings(settings: Settings) -> list[Finding]:
    """Find questionable settings.

    Args:
        settings: The settings.

    Example:
        >>> check_settings(Settings())
        []
        >>> [finding.name for finding in check_settings(Settings(recipient_validators=[]))]
        ['internal-addresses-open']
    """
    listed, excepted = "recipient_validators", "allowed_networks"
    validators = settings.validators
    found = [
        *_open(validators, listed, listed),
        *_exceptions(settings.allowed_networks, validators, excepted, excepted),
        *_exceptions(_allowed(validators), validators, listed, listed),
    ]
    for pattern, target in settings.subscribers.items():
        where = f"subscribers[{pattern!r}]"
        found += _refused(target, validators, where, "subscribers")
    if not settings.signatures:
        found.append(
            Finding(
                name="unsigned",
                setting="signatures",
                message="signatures is empty, so requests are not signed.",
                hint="Recipients can't verify that requests come from you. Add a scheme, such as"
                " 'standard-webhooks'.",
            )
        )
    return found


def check_event(event: Event, settings: Settings) -> list[Finding]:
    """Find questionable options of an event's declaration.

    Args:
        event: The event.
        settings: The settings of the app that sends it.
    """
    where = f"event {event.name!r}"
    validators = settings.validators
    found: list[Finding] = []
    if event.recipient_validators is not None:
        validators = complete_validators(
            event.recipient_validators, allowed_networks=settings.allowed_networks
        )
        found += _open(validators, f"recipient_validators of {where}", None)
        found += _exceptions(_allowed(validators), validators, where, None)
    found += _refused(event.static_subscribers, validators, where, None)
    return found


def check_dispatchers(app: App) -> list[Finding]:
    """Find events, among those declared so far, with a dispatcher that an app doesn't know.

    Args:
        app: The app that sends them.
    """
    unknown = (unknown_dispatcher(event, app) for event in all_declared_events(app))
    return [
        Finding(
            name="unknown-dispatcher",
            setting=None,
            message=message,
            hint="Sending the event raises ConfigurationError. Correct its dispatcher=, or install"
            " the plugin.",
        )
        for message in dict.fromkeys(unknown)
        if message is not None
    ]


def findings(app: App) -> list[Finding]:
    """Check an app: its settings, and its events, which it imports first.

    Raises:
        ConfigurationError: Its transport can't be made, or a module of the setting `imports` can't
            be imported.

    Example:
        >>> from thorn_core import Thorn
        >>> with Thorn(settings=Settings(allowed_networks=["0.0.0.0/0"])) as app:
        ...     [finding.name for finding in findings(app)]
        ['metadata-open']
    """
    app.check_transport()
    app.import_events()
    events = declared_events(app)
    return [
        *check_settings(app.settings),
        *(finding for event in events for finding in check_event(event, app.settings)),
        *check_dispatchers(app),
    ]


def log_findings(found: Iterable[Finding]) -> None:
    """Log findings as warnings."""
    for finding in found:
        logger.warning("%s %s", finding.message, finding.hint, extra={"finding": finding.name})


def _open(validators: Sequence[Any], where: str, setting: str | None) -> Iterator[Finding]:
    networks = open_networks(validators)
    if networks:
        yield Finding(
            name="internal-addresses-open",
            setting=setting,
            message=f"{where} permits internal addresses: anyone who can subscribe a URL can send"
            f" requests to {', '.join(networks)}.",
            hint="Add block_internal_ips() to the list, and add the networks of your internal"
            " recipients to allowed_networks.",
        )


def _exceptions(
    networks: Iterable[Network], validators: Sequence[Any], where: str, setting: str | None
) -> Iterator[Finding]:
    for network in networks:
        if opens_metadata(network, validators):
            every = "every address and " if str(network) in ALL_ADDRESSES else ""
            yield Finding(
                name="metadata-open",
                setting=setting,
                message=f"{where} permits {network}, which includes {every}the cloud metadata"
                f" service"
                f" and its credentials.",
                hint="Permit only the networks of your recipients, such as 10.1.0.0/16.",
            )
        elif not is_internal_network(network):
            yield Finding(
                name="useless-exception",
                setting=setting,
                message=f"{where} permits {network}, which is public and permitted anyway.",
                hint="Remove it; only internal networks need an exception.",
            )


def _allowed(validators: Iterable[Any]) -> list[Network]:
    return [n for each in validators if isinstance(each, AllowNetworks) for n in each.networks]


def _refused(
    target: Any, validators: Sequence[Any], where: str, setting: str | None
) -> Iterator[Finding]:
    # Only Thorn's validators; others may do name look-ups, which are too slow here.
    constant = [each for each in validators if isinstance(each, OWN_VALIDATORS)]
    for url in _urls(target):
        try:
            check_url(url, constant)
        except SecurityError as error:
            yield Finding(
                name="subscriber-refused",
                setting=setting,
                message=f"{where} contains {shown(url)}, which is refused. {error.reason}",
                hint=" ".join(error.args[1:]) or "Use another URL.",
            )


def _urls(target: Any) -> Iterator[str]:
    if isinstance(target, str):
        yield target
    elif isinstance(target, Subscription):
        yield target.url
    elif isinstance(target, Mapping):
        yield str(target["url"])
    elif isinstance(target, Iterable):
        for each in target:
            yield from _urls(each)
