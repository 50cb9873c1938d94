"""The transport port: performs one HTTP request."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from thorn_core.values import Request, Response


@runtime_checkable
class Transport(Protocol):
    """Performs one HTTP request. Lives on one event loop; made and closed there.

    Connections: a transport connects only to addresses that pass the request's validators. It
    resolves the name once per connection, checks every address, and connects to one it checked,
    with the original name for TLS and `Host`. It follows no redirects, uses no proxy of the
    environment, keeps no cookies and doesn't decompress. Bytes that arrive while a connection is
    idle never answer a request (RFC 9112 section 9.2).

    Answers: one that is complete by its own framing counts, whatever follows it. A transport keeps
    status, headers and at most `response_limit` bytes of the body, reads a bounded number of bytes,
    and makes no request again after any byte of an answer. The text of an error says what was wrong
    with the answer, for the owner of a subscription to read: no address, nothing of the parser.

    The time for the whole request is the caller's: cancelling the call closes the connection at
    once. `thorn_core.testing.transport_contract.TransportContract` tests all of this.
    """

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused for now; nothing was sent.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or an answer that can't be used.
        """
        ...

    async def close(self) -> None:
        """Close every connection; calling it twice is fine."""
        ...
