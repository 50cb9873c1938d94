"""Redirects: build the next request, without credentials for another origin."""

from __future__ import annotations

from urllib.parse import urljoin

import attrs

from thorn_core.recipients import parse_url
from thorn_core.values import Request, Response

REDIRECT_STATUSES = frozenset({301, 302, 307, 308})
REDIRECT_LIMIT = 5
# Headers that are sent to another origin. They include `webhook-signature`, because the new host
# could not verify the request without it. It covers id, time and body, so it is valid for this
# message only, and for minutes. Other schemes' signatures are dropped: some cover only the body,
# and a plugin's may be a token.
HEADERS_ACROSS_ORIGINS = frozenset(
    {
        "content-type",
        "hook-delivery",
        "hook-event",
        "hook-subscription",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)


def follow_redirect(request: Request, response: Response) -> Request | None:
    """Build the request that a redirect demands, with the same method and body.

    Another origin gets only harmless headers (see `HEADERS_ACROSS_ORIGINS`), because any other may
    be a credential. A 303 demands a GET, which would lose the payload, so it isn't followed (RFC
    9110 section 15.4.4).

    Args:
        request: The request that got the redirect.
        response: Its response.

    Returns:
        The next request, whose URL isn't validated yet; None if the redirect can't be followed.
    """
    location = response.headers.get("location")
    if response.status not in REDIRECT_STATUSES or not location:
        return None
    try:
        here, url = parse_url(request.url), urljoin(request.url, location)
        there = parse_url(url)
    except ValueError:  # from urljoin, and SecurityError
        return None
    headers = request.headers
    if (here.scheme, here.recipient) != (there.scheme, there.recipient):
        headers = {
            name: value for name, value in headers.items() if name.lower() in HEADERS_ACROSS_ORIGINS
        }
    return attrs.evolve(request, url=url, headers=headers)


def leaves_https(request: Request, hop: Request) -> bool:
    """Return whether a redirect leads from https to http, which would expose the payload.

    Args:
        request: The request that got the redirect.
        hop: The request that `follow_redirect` returned.

    Example:
        >>> request = Request(url="https://example.com/a", headers={}, body=b"{}")
        >>> leaves_https(request, attrs.evolve(request, url="http://example.com/a"))
        True
    """
    return parse_url(request.url).scheme == "https" and parse_url(hop.url).scheme == "http"
