"""The body of a request, read as far as it may be long."""

from __future__ import annotations

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge


def body_of(limit: int) -> bytes:
    """The body of the current request; of one that is too large, something that is as well.

    What has been read is kept, so that `request.json` and the like may be used afterwards.

    Args:
        limit: Bytes; Flask's own, MAX_CONTENT_LENGTH, may be lower.
    """
    own = request.max_content_length
    allowed = limit if own is None else min(limit, own)
    # One more: a body of unknown length is cut off there, without a word.
    request.max_content_length = allowed + 1
    try:
        body = request.get_data()
    except RequestEntityTooLarge:
        return bytes(limit + 1)
    return body if len(body) <= allowed else bytes(limit + 1)
