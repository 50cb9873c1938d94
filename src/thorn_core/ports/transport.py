"""The transport port: performs one HTTP request."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from thorn_core.values import Request, Response


@runtime_checkable
class Transport(Protocol):
    """Performs one HTTP request. Its event loop creates, uses and closes it.

    Connections: a transport connects only to addresses that the request's validators accept. It
    resolves the name once per connection, checks every address, and connects to one it checked,
    with the original name for TLS and `Host`. It follows no redirects, uses no proxy from the
    environment, stores no cookies and doesn't decompress bodies. It ignores bytes that arrive on an
    idle connection (RFC 9112 section 9.2).

    Responses: a response is valid once it is complete by its own framing; later bytes don't matter.
    A transport keeps status, headers and at most `response_limit` bytes of the body, and limits
    the number of bytes it reads. It never repeats a request after the first byte of a response.
    An error describes the problem with the response for the owner of a subscription: without
    addresses and without details of the parser.

    The caller limits the time of the whole request: cancelling the call closes the connection at
    once. `thorn_core.testing.transport_contract.TransportContract` tests all of this.
    """

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: A validator refuses an address for now; nothing was sent.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: Connection or TLS failure, reset, or an unusable response.
        """
        ...

    async def close(self) -> None:
        """Close every connection; calling it twice is safe."""
        ...
