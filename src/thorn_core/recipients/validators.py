"""Recipient validators: values that refuse a recipient by raising `SecurityError`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Protocol

import attrs

from thorn_core.callables import is_async
from thorn_core.errors import ConfigurationError, SecurityError
from thorn_core.recipients.addresses import (
    MAPPED,
    Address,
    Network,
    address_text,
    internal_network,
    readings,
    unmapped,
)
from thorn_core.recipients.urls import DEFAULT_PORTS, RecipientURL, shown

Ports = int | range

_PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_METHODS = ("check_url", "check_address", "allows")


class RecipientValidator(Protocol):
    """Permits or refuses recipients. Pure: it doesn't resolve names."""

    def check_url(self, url: RecipientURL) -> None:
        """Raise `SecurityError` if requests to this URL are refused."""
        ...

    def check_address(self, address: Address) -> None:
        """Raise `SecurityError` if connections to this address are refused."""
        ...

    def allows(self, address: Address) -> bool:
        """Return True to permit this address even if other validators refuse it."""
        ...


class _Indifferent:
    """A validator that accepts everything; subclasses override one check."""

    __slots__ = ()

    def check_url(self, url: RecipientURL) -> None:
        """Refuse nothing."""

    def check_address(self, address: Address) -> None:
        """Refuse nothing."""

    def allows(self, address: Address) -> bool:
        """Permit nothing."""
        return False


@attrs.frozen
class BlockInternalIPs(_Indifferent):
    """Refuses every address that isn't globally routable unicast, except those in `allowed`."""

    allowed: tuple[Network, ...] = ()

    def check_address(self, address: Address) -> None:
        """Refuse internal addresses, plain or embedded in an IPv6 address."""
        found = internal_network(address)
        if found is not None and not _is_in(address, self.allowed):
            network, what = found
            exception = str(ip_network(unmapped(address)))
            raise SecurityError(
                f"The recipient address {address_text(address)} is in {network} ({what}); use a "
                "public address.",
                f'To permit it, set allowed_networks=["{exception}"].',
            )


@attrs.frozen
class EnsureProtocol(_Indifferent):
    """Refuses URLs of other schemes than `protocols`."""

    protocols: tuple[str, ...]

    def check_url(self, url: RecipientURL) -> None:
        """Refuse other schemes."""
        if url.scheme not in self.protocols:
            raise SecurityError(
                f"The recipient URL {shown(url.text)} uses {url.scheme!r}; "
                f"use one of: {', '.join(self.protocols)}."
            )


@attrs.frozen
class EnsurePort(_Indifferent):
    """Refuses URLs with other ports than `ports`."""

    ports: tuple[Ports, ...]

    def check_url(self, url: RecipientURL) -> None:
        """Refuse other ports."""
        for ports in self.ports:
            if url.port == ports if isinstance(ports, int) else url.port in ports:
                return
        raise SecurityError(
            f"The recipient URL {shown(url.text)} uses port {url.port}; "
            f"use one of: {', '.join(map(_ports_text, self.ports))}.",
            f"To permit it, set allowed_ports=[{url.port}], or name it in your own ensure_port().",
        )


@attrs.frozen
class BlockNetworks(_Indifferent):
    """Refuses addresses in `networks`, plain or embedded in an IPv6 address."""

    networks: tuple[Network, ...]

    def check_address(self, address: Address) -> None:
        """Refuse an address if any reading of it is in one of the networks."""
        for reading in readings(address):
            for network in self.networks:
                if reading in network:
                    raise SecurityError(
                        f"The recipient address {address_text(address)} is in {network}, "
                        "which is blocked; use another recipient.",
                        "A block_cidr_network() in recipient_validators blocks it.",
                    )


@attrs.frozen
class AllowNetworks(_Indifferent):
    """Permits addresses in `networks`, whatever other validators say."""

    networks: tuple[Network, ...]

    def allows(self, address: Address) -> bool:
        """Permit an address in one of the networks."""
        return _is_in(address, self.networks)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    # A connection to an IPv4-mapped address uses IPv4, so `::/0` doesn't contain it. Addresses
    # that a gateway translates (NAT64, 6to4 …) aren't equal to the address in them.
    plain = unmapped(address)
    return any(plain in network for network in networks)


@attrs.frozen
class CalledWithURL(_Indifferent):
    """Calls a function with the URL's text; it raises `SecurityError` to refuse the URL."""

    function: Callable[[str], Any]

    def check_url(self, url: RecipientURL) -> None:
        """Call the function; False refuses, too."""
        if self.function(url.text) is False:
            raise SecurityError(
                f"The recipient URL {shown(url.text)} is refused; use another recipient.",
                f"The validator {self.function!r} gave False.",
            )


# Validators whose result for a URL or an address never changes.
OWN_VALIDATORS = (AllowNetworks, BlockInternalIPs, BlockNetworks, EnsurePort, EnsureProtocol)


def block_internal_ips() -> BlockInternalIPs:
    """Create a validator that refuses addresses other than globally routable unicast.

    These are loopback, private, link-local (cloud metadata), carrier-grade NAT, documentation,
    multicast, reserved and all others of IANA's special-purpose registries (RFC 6890), also if
    embedded in an IPv6 address: IPv4-mapped, NAT64, 6to4, Teredo, ISATAP.

    Example:
        >>> from thorn_core.recipients import check_address
        >>> check_address("8.8.8.8", [block_internal_ips()])
        IPv4Address('8.8.8.8')
        >>> try:
        ...     check_address("10.0.0.1", [block_internal_ips()])
        ... except SecurityError as error:
        ...     print(str(error).partition(";")[0])
        The recipient address 10.0.0.1 is in 10.0.0.0/8 (private, RFC 1918)
    """
    return BlockInternalIPs()


def ensure_protocol(*protocols: str) -> EnsureProtocol:
    """Create a validator that refuses URLs with other schemes.

    Args:
        *protocols: `http`, `https` or both; `https://` is accepted, too.

    Raises:
        ConfigurationError: There are none, or no transport supports one of them.

    Example:
        >>> ensure_protocol("https")
        EnsureProtocol(protocols=('https',))
    """
    names = []
    for protocol in protocols:
        name = str(protocol).lower().removesuffix("://")
        if name not in DEFAULT_PORTS:
            raise ConfigurationError(
                f"ensure_protocol() doesn't know {protocol!r}; allowed: {', '.join(DEFAULT_PORTS)}."
            )
        names.append(name)
    return EnsureProtocol(_at_least_one("ensure_protocol", names, '"https"'))


def ensure_port(*ports: int | range | str) -> EnsurePort:
    """Create a validator that refuses URLs with other ports; the default port counts.

    Args:
        *ports: Numbers from 1 to 65535, or ranges: `range(8000, 9000)` or `"8000-8999"`.

    Raises:
        ConfigurationError: There are none, or one is invalid.

    Example:
        >>> ensure_port(80, 443, "8000-8999")
        EnsurePort(ports=(80, 443, range(8000, 9000)))
    """
    given = _at_least_one("ensure_port", ports, "443")
    try:
        return EnsurePort(tuple(map(as_ports, given)))
    except ValueError as error:
        raise ConfigurationError(
            f"ensure_port() can't take {error}; allowed: whole numbers from 1 to 65535, and ranges "
            'such as range(8000, 9000) or "8000-8999".'
        ) from None


def as_ports(value: Any) -> Ports:
    """Parse a port or a range of ports.

    Args:
        value: A number from 1 to 65535, a range, or a string such as `"8080"` or `"8000-8999"`.

    Raises:
        ValueError: It is invalid; the message says why.

    Example:
        >>> as_ports("8000-8999"), as_ports("443")
        (range(8000, 9000), 443)
    """
    ports = value
    if isinstance(value, str):
        match = _PORT_RANGE.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r}, which is not a port")
        first, last = int(match[1]), int(match[2] or match[1])
        ports = range(first, last + 1) if match[2] else first
    if isinstance(ports, range):
        if not ports:
            raise ValueError(f"{value!r}, which contains no port")
        if not 0 < min(ports) <= max(ports) < 65536:
            raise ValueError(f"{value!r}, which isn't within 1 to 65535")
        return ports
    if not isinstance(ports, int) or isinstance(ports, bool) or not 0 < ports < 65536:
        raise ValueError(f"{value!r}, which is not a port")
    return ports


def _ports_text(ports: Ports) -> str:
    if isinstance(ports, int):
        return str(ports)
    if ports.step != 1:
        return ", ".join(map(str, ports[:10])) + (" …" if len(ports) > 10 else "")
    return f"{ports.start}-{ports.stop - 1}"


def block_cidr_network(*networks: str | Network | Address) -> BlockNetworks:
    """Create a validator that refuses addresses in these networks, plain or embedded.

    Args:
        *networks: In CIDR notation (RFC 4632), such as `10.0.0.0/8`; a single address is a network
            of one.

    Raises:
        ConfigurationError: There are none, or one is invalid.

    Example:
        >>> block_cidr_network("8.8.8.0/24")
        BlockNetworks(networks=(IPv4Network('8.8.8.0/24'),))
    """
    return BlockNetworks(_networks("block_cidr_network", networks))


def allow_cidr_network(*networks: str | Network | Address) -> AllowNetworks:
    """Create a validator that permits addresses in these networks, even if others refuse them.

    Args:
        *networks: In CIDR notation (RFC 4632), such as `10.1.0.0/16`; a single address is a network
            of one.

    Raises:
        ConfigurationError: There are none, or one is invalid.

    Example:
        >>> from thorn_core.recipients import check_address
        >>> check_address("10.1.2.3", [block_internal_ips(), allow_cidr_network("10.1.0.0/16")])
        IPv4Address('10.1.2.3')
    """
    return AllowNetworks(_networks("allow_cidr_network", networks))


def _networks(function: str, values: Iterable[Any]) -> tuple[Network, ...]:
    given = _at_least_one(function, values, '"10.0.0.0/8"')
    try:
        return tuple(map(as_network, given))
    except ValueError as error:
        raise ConfigurationError(
            f"{function}() can't take {error}; allowed: networks in CIDR notation without host "
            'bits, such as "10.0.0.0/8" or "fd00::/8".'
        ) from None


def as_network(value: Any) -> Network:
    """Parse a network; convert a network of IPv4-mapped addresses to IPv4.

    Args:
        value: A string in CIDR notation (RFC 4632), a single address, or a network of `ipaddress`.

    Raises:
        ValueError: It is invalid; the message says why and suggests a correction.

    Example:
        >>> as_network("10.0.0.1"), as_network("::ffff:10.0.0.0/104")
        (IPv4Network('10.0.0.1/32'), IPv4Network('10.0.0.0/8'))
    """
    if not isinstance(value, str | IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        raise ValueError(f"{value!r}, which is not a string")
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r}, which is not a network") from None
    try:
        ip_network(value)
    except ValueError:
        address = str(value).partition("/")[0]
        raise ValueError(
            f"{value!r}, which has host bits: write {str(network)!r} for the network or "
            f"{str(ip_network(address))!r} for the one address"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        first = int(network.network_address) & 0xFFFFFFFF
        network = IPv4Network((first, network.prefixlen - 96))
    return network


def _at_least_one(function: str, values: Iterable[Any], example: str) -> tuple[Any, ...]:
    values = tuple(values)
    if not values:
        raise ConfigurationError(
            f"{function}() needs at least one argument, such as {function}({example})."
        )
    return values


DEFAULT_VALIDATORS: tuple[RecipientValidator, ...] = (
    block_internal_ips(),
    ensure_protocol("http", "https"),
    ensure_port(80, 443),
)


_FACTORIES = (
    allow_cidr_network,
    block_cidr_network,
    block_internal_ips,
    ensure_port,
    ensure_protocol,
)


def as_validator(value: Any) -> RecipientValidator:
    """Convert a setting's value to a validator.

    Args:
        value: A validator, or a function that takes the URL's text and raises `SecurityError` or
            returns False to refuse it, as in Thorn 1.x.

    Raises:
        ConfigurationError: It is neither, or would never refuse: a coroutine function, or a factory
            such as `ensure_port` itself.

    Example:
        >>> as_validator(ensure_port(443))
        EnsurePort(ports=(443,))
    """
    if all(callable(getattr(value, name, None)) for name in _METHODS):
        return value  # type: ignore[no-any-return]
    if value in _FACTORIES:
        raise ConfigurationError(
            f"{value.__name__} makes a recipient validator; call it: {value.__name__}(…)"
        )
    if is_async(value):
        raise ConfigurationError(
            f"{value!r} is a coroutine function, and recipient validators aren't awaited; make it a"
            " plain function"
        )
    if callable(value) and not isinstance(value, type):
        return CalledWithURL(value)
    raise ConfigurationError(
        f"{value!r} is not a recipient validator; allowed: block_internal_ips(),"
        f" ensure_protocol(…), "
        "ensure_port(…), block_cidr_network(…), allow_cidr_network(…), a function of the URL."
    )
