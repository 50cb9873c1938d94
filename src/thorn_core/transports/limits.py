"""Bounds of connections and answers, the same for every transport."""

from __future__ import annotations

import ssl
from functools import cache

# Bytes of an answer's head, interim answers included. Common servers accept 8 KiB of request
# headers; eight times that is a generous answer.
HEAD_LIMIT = 64 * 1024
# Lines in that head. Each costs processor time, which everybody shares.
LINE_LIMIT = 2000
# Chunks of a body that are kept, for the same reason.
CHUNK_LIMIT = 1000
# Interim answers (status 1xx) before the answer. One or two are usual (100, 103).
INTERIM_LIMIT = 16
# Bytes of chunk sizes, chunk extensions and trailers, beside WIRE_FACTOR bytes on the wire for
# each byte of the body that is kept: a body in chunks of one byte takes six.
FRAMING_LIMIT = 64 * 1024
WIRE_FACTOR = 8


def body_limit(response_limit: int) -> int:
    """Bytes to read behind the head at most, for a body of which so many are kept.

    Example:
        >>> body_limit(8192)
        131072
    """
    return FRAMING_LIMIT + WIRE_FACTOR * response_limit


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Verify certificates and names by the system's roots. Made once, since that is slow."""
    return ssl.create_default_context()
