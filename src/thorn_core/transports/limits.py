"""What every transport demands of a connection and of a response."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cache

from thorn_core.errors import TransportError

# Common servers accept 8 KiB of request headers; four times that is a generous answer.
HEADERS_LIMIT = 64 * 1024


def check_header_size(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a response with too many bytes of headers.

    Raises:
        TransportError: There are more than 64 KiB.
    """
    size = sum(len(name) + len(value) for name, value in headers)
    if size > HEADERS_LIMIT:
        raise TransportError(
            f"the response has {size} bytes of headers; at most {HEADERS_LIMIT} are taken"
        )


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Verifies certificates and names by the system's roots; made once, for it takes a while."""
    return ssl.create_default_context()
