"""The effective validators of a list, and the internal networks that they permit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import attrs

from thorn_core.recipients.addresses import (
    Address,
    Network,
    holds_internal_network,
    internal_network,
)
from thorn_core.recipients.checks import METADATA_ADDRESSES
from thorn_core.recipients.validators import (
    AllowNetworks,
    BlockInternalIPs,
    EnsurePort,
    Ports,
    as_validator,
)

# One address of each kind of internal network that requests can reach.
_PROBES: tuple[Address, ...] = tuple(
    map(
        ip_address,
        (
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "fe80::1",
        ),
    )
)
# The same addresses through a NAT64 gateway (RFC 6052).
_TRANSLATED_METADATA = tuple(
    IPv6Address(0x64FF9B << 96 | int(address))
    for address in METADATA_ADDRESSES
    if isinstance(address, IPv4Address)
)


def complete_validators(
    validators: Iterable[Any],
    *,
    allowed_networks: tuple[Network, ...] = (),
    allowed_ports: tuple[Ports, ...] = (),
) -> tuple[Any, ...]:
    """Return the effective validators for a configured list.

    Exceptions are additive: a list with an exception always includes `block_internal_ips()`, even
    if the list doesn't contain it.

    Args:
        validators: The validators of the setting or of an event.
        allowed_networks: Exceptions to `block_internal_ips()` only.
        allowed_ports: Added to every `ensure_port()`.

    Example:
        >>> from thorn_core.recipients import allow_cidr_network
        >>> complete_validators([allow_cidr_network("10.1.0.0/16")])[0]
        BlockInternalIPs(allowed=())
    """
    given = [as_validator(each) for each in validators]
    excepts = bool(allowed_networks) or any(isinstance(each, AllowNetworks) for each in given)
    if excepts and not any(isinstance(each, BlockInternalIPs) for each in given):
        given.insert(0, BlockInternalIPs())
    complete: list[Any] = []
    for each in given:
        if isinstance(each, BlockInternalIPs) and allowed_networks:
            complete.append(attrs.evolve(each, allowed=(*each.allowed, *allowed_networks)))
        elif isinstance(each, EnsurePort) and allowed_ports:
            complete.append(attrs.evolve(each, ports=(*each.ports, *allowed_ports)))
        else:
            complete.append(each)
    return tuple(complete)


def open_networks(validators: Sequence[Any]) -> tuple[str, ...]:
    """Return the internal networks that validators permit, except for explicit exceptions.

    Args:
        validators: Those in force.

    Example:
        >>> from thorn_core.recipients import DEFAULT_VALIDATORS, block_cidr_network
        >>> open_networks(DEFAULT_VALIDATORS)
        ()
        >>> open_networks([block_cidr_network("0.0.0.0/0")])
        ('fc00::/7', 'fe80::/10')
    """
    blocking = [
        BlockInternalIPs() if isinstance(each, BlockInternalIPs) else each
        for each in validators
        if not isinstance(each, AllowNetworks)
    ]
    found = [internal_network(probe) for probe in _PROBES if not _refused(probe, blocking)]
    return tuple(dict.fromkeys(str(network) for network, _ in filter(None, found)))


def _refused(address: Address, validators: Sequence[Any]) -> bool:
    for validator in validators:
        try:
            validator.check_address(address)
        except Exception:
            return True
    return False


def is_internal_network(network: Network) -> bool:
    """Return whether a network contains internal addresses, so that an exception has an effect.

    Example:
        >>> from ipaddress import ip_network
        >>> [is_internal_network(ip_network(n)) for n in ("10.1.0.0/16", "8.0.0.0/6", "8.8.8.8")]
        [True, True, False]
    """
    ends = (network.network_address, network.broadcast_address)
    return any(internal_network(address) for address in ends) or holds_internal_network(network)


def opens_metadata(network: Network, validators: Sequence[Any] = ()) -> bool:
    """Return whether an exception permits a cloud's metadata service, directly or by NAT64.

    Args:
        network: The exception.
        validators: The effective validators; they may still block the service.

    Example:
        >>> from ipaddress import ip_network
        >>> opens_metadata(ip_network("0.0.0.0/0")), opens_metadata(ip_network("10.0.0.0/8"))
        (True, False)
    """
    services = (*METADATA_ADDRESSES, *_TRANSLATED_METADATA)
    within = [address for address in services if address in network]
    return any(
        any(validator.allows(address) for validator in validators)
        or not _refused(address, validators)
        for address in within
    )
