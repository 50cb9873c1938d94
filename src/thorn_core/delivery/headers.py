"""The headers of a request: checks of extra headers, and merging."""

from __future__ import annotations

import re
from collections.abc import Mapping

from thorn_core.errors import ConfigurationError

# Thorn sets these itself, or they are hop-by-hop (RFC 9110 section 7.6.1).
PROTECTED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "hook-delivery",
        "hook-event",
        "hook-hmac",
        "hook-subscription",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
HEADER_COUNT = 50
HEADER_LENGTH = 4096  # servers commonly refuse a line of more than 8 KiB

# RFC 9110 section 5.6.2 (token) and 5.5 (field value, in ASCII).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check the extra headers of an event or a subscription.

    Args:
        headers: Names to values.

    Raises:
        ConfigurationError: They aren't a mapping, or too many. Or Thorn sets one of them itself,
            HTTP forbids it, or it is invalid by RFC 9110 section 5 (for example, it contains a
            line break).

    Example:
        >>> check_headers({"Authorization": "Bearer abc"})
        {'Authorization': 'Bearer abc'}
        >>> check_headers({"Host": "intranet"})
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: header 'Host' is set by Thorn or by HTTP; remove it
    """
    if not isinstance(headers, Mapping):
        raise ConfigurationError(
            f"headers is a {type(headers).__name__}; use a mapping of name to value"
        )
    if len(headers) > HEADER_COUNT:
        raise ConfigurationError(f"{len(headers)} headers; at most {HEADER_COUNT} are allowed")
    checked: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(
                f"header name {name!r} is not valid; use letters, digits and hyphens"
            )
        if name.lower() in PROTECTED_HEADERS:
            raise ConfigurationError(f"header {name!r} is set by Thorn or by HTTP; remove it")
        if name.lower() in seen:
            raise ConfigurationError(f"header {name!r} is given twice; give it once")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            # The value may be a credential, so it isn't shown.
            raise ConfigurationError(
                f"the value of header {name!r} contains characters other than printable ASCII (a"
                f" line break?); remove or encode them"
            )
        if len(value) > HEADER_LENGTH:
            raise ConfigurationError(
                f"the value of header {name!r} has {len(value)} characters;"
                f" at most {HEADER_LENGTH} are allowed"
            )
        seen.add(name.lower())
        checked[name] = value.strip(" \t")
    return checked


def merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Merge headers; a later layer wins, and names are compared without case (RFC 9110 5.1).

    All headers of a request are merged here, so that each is sent once.

    Args:
        *layers: Names to values: the event's, the send's, the subscription's, Thorn's own.

    Example:
        >>> merge_headers({"X-Tenant": "1", "X-Source": "blog"}, {"x-tenant": "2"})
        {'x-tenant': '2', 'X-Source': 'blog'}
    """
    merged: dict[str, str] = {}
    for layer in layers:
        merged.update(layer)
    if len({name.lower() for name in merged}) == len(merged):
        return merged
    by_name: dict[str, tuple[str, str]] = {}
    for layer in layers:
        for name, value in layer.items():
            by_name[name.lower()] = (name, value)
    return dict(by_name.values())
