"""IP addresses: their spellings, embedded addresses, and internal networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from thorn_core.errors import SecurityError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_ENDS_IN_A_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?\Z")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


def _table(rows: Iterable[tuple[str, str]]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), what) for network, what in rows)


# IANA's special-purpose registries (RFC 6890), with the RFC of each entry; the first match counts.
# Listed here, because `is_global` of `ipaddress` changed between Python's patch releases.
_INTERNAL_4 = _table(
    (
        ("0.0.0.0/8", "this network, RFC 1122"),
        ("10.0.0.0/8", "private, RFC 1918"),
        ("100.64.0.0/10", "carrier-grade NAT, RFC 6598"),
        ("127.0.0.0/8", "loopback, RFC 1122"),
        ("168.63.129.16/32", "the Azure host, virtual public address"),
        ("169.254.0.0/16", "link-local and cloud metadata, RFC 3927"),
        ("172.16.0.0/12", "private, RFC 1918"),
        ("192.0.0.0/24", "IETF protocols, RFC 6890"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.88.99.0/24", "6to4 relays, RFC 7526"),
        ("192.168.0.0/16", "private, RFC 1918"),
        ("198.18.0.0/15", "benchmarks, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("255.255.255.255/32", "broadcast, RFC 919"),
        ("240.0.0.0/4", "reserved, RFC 1112"),
    )
)
_INTERNAL_6 = _table(
    (
        ("::/128", "unspecified, RFC 4291"),
        ("::1/128", "loopback, RFC 4291"),
        ("::/96", "IPv4-compatible, RFC 4291"),
        ("64:ff9b:1::/48", "local NAT64, RFC 8215"),
        ("100::/64", "discard, RFC 6666"),
        ("2001::/32", "Teredo, RFC 4380"),
        ("2001::/23", "IETF protocols, RFC 2928"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing, RFC 9602"),
        ("fc00::/7", "unique local, RFC 4193"),
        ("fe80::/10", "link-local, RFC 4291"),
        ("fec0::/10", "site-local, RFC 3879"),
        ("ff00::/8", "multicast, RFC 4291"),
        # Global unicast is 2000::/3; these three cover all other addresses.
        ("::/3", "not global unicast, RFC 4291"),
        ("4000::/2", "not global unicast, RFC 4291"),
        ("8000::/1", "not global unicast, RFC 4291"),
    )
)
MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 2.5.5.2
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291 2.5.5.1
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214 6.1


def ip_literal(host: str) -> Address | None:
    """Parse a host as an IP address, in any spelling that a resolver accepts.

    Args:
        host: A host, IPv6 with or without brackets. IPv4 may have one to four parts, each decimal,
            octal or hexadecimal, as in `inet_aton` and WHATWG's URL standard.

    Returns:
        The address; None if the host is a name.

    Raises:
        SecurityError: It has a zone id, or ends in a number without being a valid address.

    Example:
        >>> ip_literal("2130706433"), ip_literal("[::1]"), ip_literal("example.com")
        (IPv4Address('127.0.0.1'), IPv6Address('::1'), None)
    """
    if "%" in host:
        raise SecurityError(f"{host!r} has a zone id or an encoded character; write it without.")
    try:
        if ":" in host or "[" in host:
            bracketed = host.startswith("[") and host.endswith("]")
            return IPv6Address(host[1:-1] if bracketed else host)
        if _ENDS_IN_A_NUMBER.search(host):
            return _ipv4(host.removesuffix("."))
    except ValueError:
        raise SecurityError(f"{host[:80]!r} is not an IP address; check its spelling.") from None
    return None


def _ipv4(host: str) -> IPv4Address:
    *front, value = [_number(part) for part in host.split(".")]
    if len(front) > 3 or max(front, default=0) > 255 or value >= 256 ** (4 - len(front)):
        raise ValueError(host)
    for position, number in enumerate(front):
        value += number << 8 * (3 - position)
    return IPv4Address(value)


def _number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise ValueError(part)
    if part[:2] in {"0x", "0X"}:
        return int(part[2:] or "0", 16)
    return int(part, 8 if part[0] == "0" else 10)


def address_text(address: Address) -> str:
    """Format an address the same on every version of Python (RFC 5952).

    Example:
        >>> address_text(IPv6Address("::ffff:7f00:1"))
        '::ffff:127.0.0.1'
    """
    plain = unmapped(address)
    return str(address) if plain is address else f"::ffff:{plain}"


@lru_cache(maxsize=4096)
def internal_network(address: Address) -> tuple[Network, str] | None:
    """Return the internal network of an address that isn't globally routable unicast.

    Returns:
        The network and its purpose; None if the address is public.

    Example:
        >>> internal_network(IPv6Address("64:ff9b::10.0.0.1"))
        (IPv4Network('10.0.0.0/8'), 'private, RFC 1918')
    """
    for reading in readings(address):
        if isinstance(reading, IPv4Address):
            table = _INTERNAL_4
        elif reading in MAPPED or reading in _NAT64:
            continue  # the embedded address counts
        else:
            table = _INTERNAL_6
        for row in table:
            if reading in row[0]:
                return row
    return None


def holds_internal_network(network: Network) -> bool:
    """Return whether a network contains one of the internal networks."""
    rows = _INTERNAL_4 if isinstance(network, IPv4Network) else _INTERNAL_6
    return any(_within(row[0], network) for row in rows)


def _within(inner: Network, outer: Network) -> bool:
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of an IPv4-mapped address; others unchanged.

    Example:
        >>> unmapped(IPv6Address("::ffff:8.8.8.8"))
        IPv4Address('8.8.8.8')
    """
    if isinstance(address, IPv6Address) and address in MAPPED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


@lru_cache(maxsize=4096)
def readings(address: Address) -> tuple[Address, ...]:
    """Return an address, and all IPv4 addresses that hosts, routers or relays may extract from it.

    Example:
        >>> readings(IPv6Address("2002:a00:1::"))
        (IPv6Address('2002:a00:1::'), IPv4Address('10.0.0.1'))
    """
    if isinstance(address, IPv4Address):
        return (address,)
    value = int(address)
    inner: list[int] = []
    if any(address in n for n in (MAPPED, _NAT64, _NAT64_LOCAL, _COMPATIBLE, _TRANSLATED)):
        inner.append(value)
    if address in _NAT64_LOCAL:
        inner.append((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF)  # RFC 6052 2.2, /48
    if address in _SIX_TO_FOUR:
        inner.append(value >> 80)
    if address in _TEREDO:
        inner += [value >> 64, ~value]
    if value >> 32 & 0xFFFFFFFF in _ISATAP:
        inner.append(value)
    return (address, *(IPv4Address(number & 0xFFFFFFFF) for number in inner))
