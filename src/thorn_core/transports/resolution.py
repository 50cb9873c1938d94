"""From a recipient's name to the addresses that a connection may be opened to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from thorn_core.errors import SecurityError, TransportError
from thorn_core.recipients import address_text, check_address, ip_literal
from thorn_core.transports.lookups import system_resolver

# Host and port to address texts.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# The largest services answer with a dozen or two; more is an attempt to keep us busy.
MOST_ADDRESSES = 64


async def resolve(
    host: str,
    port: int,
    validators: Sequence[Any],
    *,
    resolver: Resolver | None = None,
    owner: str | None = None,
) -> tuple[str, ...]:
    """Resolve a name once and check every address; one bad one refuses all.

    Args:
        host: A name in ASCII or an IP address, which is checked without a look-up.
        port: The port.
        validators: Recipient validators.
        resolver: Does the look-up; None asks the operating system.
        owner: Owner of the subscription; counts the operating system's look-ups.

    Returns:
        The addresses, each once, in the resolver's order. Connect to these and to no others.

    Raises:
        SecurityError: An address is refused, or there are more than 64. The message names the
            host only, since who subscribed it may read it; its cause names the address.
        TransportError: The name can't be resolved.

    Example:
        >>> import asyncio
        >>> from thorn_core.recipients import DEFAULT_VALIDATORS
        >>> async def resolver(host, port):
        ...     return ["93.184.215.14"]
        >>> asyncio.run(resolve("example.com", 443, DEFAULT_VALIDATORS, resolver=resolver))
        ('93.184.215.14',)
    """
    literal = ip_literal(host)
    if literal is not None:
        return (address_text(check_address(literal, validators)),)
    if resolver is None:
        found = await system_resolver(host, port, owner)
    else:
        found = await resolver(host, port)
    answers = dict.fromkeys(found)
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
            "public addresses only.",
            "If the host is yours, add its network to the setting allowed_networks.",
        ) from error
