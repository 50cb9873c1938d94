"""The body of a request, up to a maximum size."""

from __future__ import annotations

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge


def body_of(limit: int) -> bytes:
    """Return the body of the current request; of a larger one, slightly more than the limit.

    The body is cached, so that `request.json` and the like work afterwards.

    Args:
        limit: Maximum bytes; Flask's own limit, MAX_CONTENT_LENGTH, may be lower.
    """
    own = request.max_content_length
    allowed = limit if own is None else min(limit, own)
    # One byte more, because Flask silently truncates bodies of unknown length at the limit.
    request.max_content_length = allowed + 1
    try:
        body = request.get_data()
    except RequestEntityTooLarge:
        return bytes(limit + 1)
    return body if len(body) <= allowed else bytes(limit + 1)
