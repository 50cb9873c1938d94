"""The transport port: performs one HTTP request."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from thorn_core.values import Request, Response


@runtime_checkable
class Transport(Protocol):
    """Performs one HTTP request. Lives on one event loop; made and closed there.

    A transport connects only to addresses that pass the request's validators: it resolves the name
    once per connection, checks every address, and connects to one it checked, with the original
    name for TLS and `Host`. It never follows redirects, uses no proxy of the environment, keeps no
    cookies and doesn't decompress. It reads the status, headers and at most `response_limit` bytes
    of the body, and closes the connection rather than read more. The time for the whole request is
    the caller's: cancelling the call closes the connection at once. The contract in full is
    `thorn_core.testing.TransportContract`, which every implementation passes.
    """

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused; nothing was sent.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or what came back isn't HTTP.
        """
        ...

    async def close(self) -> None:
        """Close every connection; calling it twice is fine."""
        ...
