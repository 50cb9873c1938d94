"""From a recipient's name to the addresses that a connection may be opened to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from thorn_core.errors import SecurityError, TransportError
from thorn_core.recipients import address_text, check_address, ip_literal

# Host and port to address texts.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# The largest services answer with a dozen or two; more is an attempt to keep us busy.
MOST_ADDRESSES = 64


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Look a name up as the operating system does, for TCP.

    Args:
        host: The name, in ASCII.
        port: The port.

    Returns:
        Addresses in the order of preference (RFC 6724), a zone id behind `%` where there is one.

    Raises:
        TransportError: The name has no address, or there was no answer.
    """
    loop = asyncio.get_running_loop()
    hints = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    try:
        try:
            found = await loop.getaddrinfo(host, port, **hints)
        except RuntimeError:
            # The threads are gone at the interpreter's exit, but the last messages aren't sent yet.
            found = socket.getaddrinfo(host, port, **hints)
    except (OSError, ValueError) as error:
        raise TransportError(
            f"The recipient's name {host!r} can't be resolved: {error}; check its spelling and "
            "this machine's DNS."
        ) from error
    return [_with_zone(sockaddr) for _, _, _, _, sockaddr in found]


def _with_zone(sockaddr: tuple[Any, ...]) -> str:
    text = str(sockaddr[0])
    zone = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{text}%{zone}" if zone and "%" not in text else text


async def resolve(
    host: str, port: int, validators: Sequence[Any], *, resolver: Resolver = system_resolver
) -> tuple[str, ...]:
    """Resolve a name once and check every address; one bad one refuses all.

    Args:
        host: A name in ASCII or an IP address, which is checked without a look-up.
        port: The port.
        validators: Recipient validators.
        resolver: Does the look-up.

    Returns:
        The addresses, each once, in the resolver's order. Connect to these and to no others.

    Raises:
        SecurityError: An address is refused, or there are more than 64. The message names the
            host only, since who subscribed it may read it; its cause names the address.
        TransportError: The name can't be resolved.

    Example:
        >>> from thorn_core.recipients import DEFAULT_VALIDATORS
        >>> async def resolver(host, port):
        ...     return ["93.184.215.14"]
        >>> asyncio.run(resolve("example.com", 443, DEFAULT_VALIDATORS, resolver=resolver))
        ('93.184.215.14',)
    """
    literal = ip_literal(host)
    if literal is not None:
        return (address_text(check_address(literal, validators)),)
    answers = dict.fromkeys(await resolver(host, port))
    if not answers:
        raise TransportError(f"The recipient's name {host!r} has no address; check its DNS.")
    if len(answers) > MOST_ADDRESSES:
        raise SecurityError(
            f"The recipient's name {host!r} has {len(answers)} addresses, more than "
            f"{MOST_ADDRESSES}; use a name with fewer."
        )
    try:
        return tuple(
            dict.fromkeys(address_text(check_address(text, validators)) for text in answers)
        )
    except SecurityError as error:
        raise SecurityError(
            f"The recipient's name {host!r} resolves to an address that is refused; use one with "
            "public addresses only."
        ) from error
