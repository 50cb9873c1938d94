"""Redirects: which request to make after one, and what goes along."""

from __future__ import annotations

from urllib.parse import urljoin

import attrs

from thorn_core.recipients import parse_url
from thorn_core.values import Request, Response

REDIRECT_STATUSES = frozenset({301, 302, 307, 308})
REDIRECT_LIMIT = 5
# What goes on to another origin. `webhook-signature` does, since the recipient's new host could not
# tell the request from a forgery without it: it covers id, time and body, so it is good for this
# message alone and for minutes. Signatures of other schemes don't: some cover the body only, and a
# plugin's may be a token.
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
    """Build the request that a redirect asks for, with the method and body kept.

    At an origin's border only harmless headers go on (see `HEADERS_ACROSS_ORIGINS`); any other may
    be a credential, whatever its name. A 303 asks for a GET, which would lose the payload, so it
    isn't followed (RFC 9110 section 15.4.4).

    Args:
        request: The request that was made.
        response: What came back.

    Returns:
        The next request, whose URL isn't validated yet; None if there is none to make.
    """
    location = response.headers.get("location")
    if response.status not in REDIRECT_STATUSES or not location:
        return None
    try:
        here, url = parse_url(request.url), urljoin(request.url, location)
        there = parse_url(url)
    except ValueError:  # of urljoin, and SecurityError
        return None
    headers = request.headers
    if (here.scheme, here.recipient) != (there.scheme, there.recipient):
        headers = {
            name: value for name, value in headers.items() if name.lower() in HEADERS_ACROSS_ORIGINS
        }
    return attrs.evolve(request, url=url, headers=headers)


def leaves_https(request: Request, hop: Request) -> bool:
    """True if a redirect goes from https to http, where anybody on the way can read the payload.

    Args:
        request: The request that was made.
        hop: What `follow_redirect` made of it.

    Example:
        >>> request = Request(url="https://example.com/a", headers={}, body=b"{}")
        >>> leaves_https(request, attrs.evolve(request, url="http://example.com/a"))
        True
    """
    return parse_url(request.url).scheme == "https" and parse_url(hop.url).scheme == "http"
