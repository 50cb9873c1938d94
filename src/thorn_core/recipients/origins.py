"""Origins, and the headers that are credentials for one (RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from thorn_core.errors import SecurityError
from thorn_core.recipients.urls import DEFAULT_PORTS, parse_url

# By header name, or by the scheme in Authorization (RFC 9110 section 11.4).
_CREDENTIAL_NAME = re.compile(
    "auth|cookie|credential|hmac|jwt|key|pass|pwd|secret|session|signature|token", re.IGNORECASE
)
_CREDENTIAL_VALUE = re.compile(r"(?:basic|bearer|digest|negotiate|token)\s", re.IGNORECASE)


def same_origin(one: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port.

    Example:
        >>> same_origin("https://e.com/a", "https://E.com:443/b")
        True
        >>> same_origin("https://e.com/a", "http://e.com/a")
        False
    """
    try:
        first, second = parse_url(one), parse_url(other)
    except SecurityError:
        return False
    return (first.scheme, first.recipient) == (second.scheme, second.recipient)


def origin_of(url: str) -> str | None:
    """Return the origin of a URL, to show it; None if the URL is invalid for recipients.

    Example:
        >>> origin_of("https://E.com/hook?key=1"), origin_of("http://e.com:8080"), origin_of("e")
        ('https://e.com', 'http://e.com:8080', None)
    """
    try:
        parsed = parse_url(url)
    except SecurityError:
        return None
    default = f":{DEFAULT_PORTS[parsed.scheme]}"
    return f"{parsed.scheme}://{parsed.recipient.removesuffix(default)}"


def hides_value(name: str, value: str = "") -> bool:
    """Return whether a header's value may be a credential, which is accepted but never shown.

    Example:
        >>> [hides_value("Authorization"), hides_value("X-To", "Bearer abc"), hides_value("X-To")]
        [True, True, False]
    """
    found = _CREDENTIAL_NAME.search(name) or _CREDENTIAL_VALUE.match(value)
    return found is not None


def without_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers without credentials, which may be shown and sent to another origin.

    Example:
        >>> without_credentials({"Authorization": "Bearer abc", "X-Shop": "1"})
        {'X-Shop': '1'}
    """
    return {name: value for name, value in headers.items() if not hides_value(name, value)}
