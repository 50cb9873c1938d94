"""Call validators: for URLs at subscription, and for each address before connecting."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from thorn_core.errors import SecurityError
from thorn_core.recipients.addresses import Address
from thorn_core.recipients.urls import RecipientURL, parse_url
from thorn_core.recipients.validators import RecipientValidator, as_validator

# Names with well-known addresses. For this machine: RFC 6761 6.3 (with all names below
# `.localhost`) and the hosts files of Linux distributions.
_LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_LOCAL_NAMES = frozenset(
    {
        "ip6-localhost",
        "ip6-loopback",
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost4.localdomain4",
        "localhost6",
        "localhost6.localdomain6",
        "loopback",
    }
)
# Of cloud metadata services: AWS, Google, Azure, IBM, Tencent, Equinix, Rancher.
METADATA_ADDRESSES: tuple[Address, ...] = (
    IPv4Address("169.254.169.254"),
    IPv6Address("fd00:ec2::254"),
    IPv6Address("fd20:ce::254"),
)
_METADATA_NAMES = frozenset(
    {
        "api.metadata.cloud.ibm.com",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.packet.net",
        "metadata.platformequinix.com",
        "metadata.tencentyun.com",
        "rancher-metadata",
    }
)


def check_url(url: str, validators: Sequence[Any]) -> RecipientURL:
    """Check a recipient's URL, and the address in it if there is one.

    A well-known host, such as `localhost` or a cloud's metadata service, is checked by its
    addresses, so a validator that permits 127.0.0.0/8 permits `localhost`, too.

    Args:
        url: The URL.
        validators: Validators, or values that `as_validator` accepts.

    Raises:
        SecurityError: It is refused.

    Example:
        >>> from thorn_core.recipients import DEFAULT_VALIDATORS
        >>> check_url("https://example.com/hook", DEFAULT_VALIDATORS).recipient
        'example.com:443'
    """
    parsed = parse_url(url)
    asked = _validators(validators)
    for validator in asked:
        validator.check_url(parsed)
    if parsed.address is not None:
        check_address(parsed.address, asked)
    elif parsed.host in _LOCAL_NAMES or parsed.host.endswith(".localhost"):
        _check_any(parsed.host, _LOOPBACK, asked)
    elif parsed.host in _METADATA_NAMES:
        _check_any(parsed.host, METADATA_ADDRESSES, asked)
    return parsed


def _check_any(
    host: str, addresses: Sequence[Address], validators: Sequence[RecipientValidator]
) -> None:
    refusals: list[SecurityError] = []
    for address in addresses:
        try:
            check_address(address, validators)
        except SecurityError as error:
            refusals.append(error)
        else:
            return
    raise SecurityError(
        f"The recipient host {host!r} is refused; use a public host.", str(refusals[0])
    )


def check_address(address: str | Address, validators: Sequence[Any]) -> Address:
    """Check an address before a connection is opened.

    Args:
        address: The address, IPv6 without brackets.
        validators: Validators, or values that `as_validator` accepts. If one of them permits the
            address, the others aren't called; otherwise all must accept it.

    Raises:
        SecurityError: It is refused, has a zone id (RFC 4007), or is invalid.

    Example:
        >>> from thorn_core.recipients import DEFAULT_VALIDATORS
        >>> check_address("93.184.215.14", DEFAULT_VALIDATORS)
        IPv4Address('93.184.215.14')
    """
    checked = _parsed(address) if isinstance(address, str) else address
    if isinstance(checked, IPv6Address) and checked.scope_id is not None:
        raise SecurityError(
            f"The recipient address {checked} has a zone id, so it is on the local link; "
            "use a public address."
        )
    asked = _validators(validators)
    if not any(validator.allows(checked) for validator in asked):
        for validator in asked:
            validator.check_address(checked)
    return checked


def _parsed(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise SecurityError(
            f"{text[:80]!r} is not an IP address; write it as 192.0.2.1 or 2001:db8::1."
        ) from None


def _validators(values: Sequence[Any]) -> Sequence[RecipientValidator]:
    # Settings and events contain tuples of validators, and this is called for every request.
    for value in values:
        if not hasattr(value, "check_address"):
            return [as_validator(each) for each in values]
    return values
