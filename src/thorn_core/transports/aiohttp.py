"""The fast transport: aiohttp's HTTP parser (in C) on connections of our own; extra `fast`.

aiohttp's own session costs about three times what the request itself does, for cookies, redirects,
proxies, tracing and a pool, none of which a webhook needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

from thorn_core.errors import TransportError, TransportTimeout
from thorn_core.recipients import RecipientURL, parse_url
from thorn_core.transports.idle import IdleConnections, Origin
from thorn_core.transports.limits import HEADERS_LIMIT, check_header_size, default_ssl_context
from thorn_core.transports.resolution import Resolver, resolve, system_resolver
from thorn_core.values import Request, Response

WITHOUT_BODY = frozenset({204, 304})  # RFC 9112 section 6.3
BUFFER = 16 * 1024


class AiohttpTransport:
    """Performs requests, with keep-alive.

    Args:
        resolver: Looks names up.
        ssl_context: For TLS; None verifies certificates by the system's roots.
        max_connections: Idle connections to keep.
        idle_timeout: Seconds after which an idle connection is closed.
    """

    def __init__(
        self,
        *,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = 256,
        idle_timeout: float = 30.0,
    ) -> None:
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._idle: IdleConnections[_Connection] = IdleConnections(
            most=max_connections,
            timeout=idle_timeout,
            lost=lambda connection: connection.lost,
            close=_Connection.abort,
        )

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or what came back isn't HTTP.
        """
        url = parse_url(request.url)
        head = _head(request, url)
        origin = (url.scheme, url.host, url.port, id(request.validators))
        connection = self._idle.take(origin)
        if connection is not None:
            try:
                return await self._perform(connection, head, request)
            except _Stale:
                pass  # it was closed while it was idle, so nothing was answered: once more, anew
        try:
            async with asyncio.timeout(request.connect_timeout):
                connection = await self._connect(origin, request)
        except TimeoutError as error:
            raise TransportTimeout(f"no connection to {url.recipient} in time") from error
        return await self._perform(connection, head, request)

    async def _connect(self, origin: Origin, request: Request) -> _Connection:
        scheme, host, port, _ = origin
        addresses = await resolve(host, port, request.validators, resolver=self._resolver)
        loop = asyncio.get_running_loop()
        context = None
        if scheme == "https":
            context = self._ssl_context or default_ssl_context()
        failure: Exception | None = None
        # An equal share each, so that one that doesn't answer leaves the others theirs.
        share = request.connect_timeout / len(addresses)
        for address in addresses:
            try:
                async with asyncio.timeout(share):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(origin, request.validators, loop),
                        address,
                        port,
                        ssl=context,
                        server_hostname=host if context is not None else None,
                    )
            except ssl.SSLError as error:
                raise TransportError(f"no TLS connection to {host}:{port}: {error}") from error
            except (OSError, TimeoutError) as error:
                failure = error
            else:
                return connection
        if isinstance(failure, TimeoutError):
            raise TransportTimeout(f"no connection to {host}:{port} in time") from failure
        raise TransportError(f"no connection to {host}:{port}: {failure}") from failure

    async def _perform(self, connection: _Connection, head: bytes, request: Request) -> Response:
        keep = False
        try:
            message, payload = await connection.exchange(head + request.body)
            body, complete = b"", True
            if message.code not in WITHOUT_BODY:
                body, complete = await _read(payload, request.response_limit)
            keep = complete and request.keepalive and not message.should_close
        finally:
            if keep:
                self._idle.put(connection)
            else:
                connection.abort()
        return Response(status=message.code, headers=_headers(message), body=body)

    async def close(self) -> None:
        """Close every connection."""
        self._idle.close()
        # The loop closes sockets in its next round; whoever stops it now would leave them open.
        await asyncio.sleep(0)


class _Stale(Exception):  # noqa: N818 - never leaves this file
    """A kept connection turned out to be closed."""


class _Connection(BaseProtocol):
    """One connection, one request at a time; the base pauses reading where a payload asks it to."""

    def __init__(
        self, origin: Origin, validators: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop=loop)
        self.origin = origin
        self.validators = validators
        self.used = False
        self.lost = False
        self.idle_since = 0.0
        self._waiter: asyncio.Future[tuple[RawResponseMessage, StreamReader]] | None = None
        self._payload: StreamReader | None = None
        self._head_size = 0
        self._parser: HttpResponseParser = HttpResponseParser(
            self,
            loop,
            BUFFER,
            read_until_eof=True,
            auto_decompress=False,
        )

    async def exchange(self, data: bytes) -> tuple[RawResponseMessage, StreamReader]:
        """Send a request, and wait for the head of its response."""
        if self.lost or self.transport is None:
            raise self._gone()
        waiter: asyncio.Future[tuple[RawResponseMessage, StreamReader]]
        self._waiter = waiter = self._loop.create_future()
        self._head_size = 0
        self.transport.write(data)
        return await waiter

    def abort(self) -> None:
        """Close the connection at once."""
        self.lost = True
        if self.transport is not None:
            self.transport.abort()

    # -- what the loop calls

    def data_received(self, data: bytes) -> None:
        self._head_size += len(data)
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception as error:
            self._fail(f"didn't answer in HTTP: {str(error).splitlines()[0] if str(error) else ''}")
            return
        for message, payload in messages:
            if 100 <= message.code < 200:
                continue  # interim (RFC 9110 section 15.2)
            if self._waiter is None or self._waiter.done():
                self.abort()  # more than was asked for
                return
            self._payload = payload
            self._waiter.set_result((message, payload))
            self._waiter = None
        if self._waiter is not None and self._head_size > HEADERS_LIMIT:
            self._fail(f"answered with more than {HEADERS_LIMIT} bytes of headers")

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        with contextlib.suppress(Exception):
            self._parser.feed_eof()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._gone())
        if self._payload is not None and not self._payload.is_eof():
            _, host, port, _ = self.origin
            self._payload.set_exception(
                TransportError(f"{host}:{port} closed the connection in the middle of its answer")
            )

    def _gone(self) -> Exception:
        _, host, port, _ = self.origin
        if self.used and self._head_size == 0:
            return _Stale()
        return TransportError(f"{host}:{port} closed the connection without an answer")

    def _fail(self, problem: str) -> None:
        _, host, port, _ = self.origin
        error = TransportError(f"{host}:{port} {problem}")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        elif self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(error)
        self.abort()


def _head(request: Request, url: RecipientURL) -> bytes:
    """The request line and the headers (RFC 9112 section 3)."""
    lines = [
        f"{request.method} {url.path} HTTP/1.1",
        f"Host: {url.text.split('/', 3)[2]}",
        *[f"{name}: {value}" for name, value in request.headers.items()],
        f"Content-Length: {len(request.body)}",
    ]
    if not request.keepalive:
        lines.append("Connection: close")
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines) or "\0" in text:
        raise TransportError("a header holds a line break, which would be another header")
    try:
        return text.encode("latin-1") + b"\r\n\r\n"
    except UnicodeEncodeError as error:
        raise TransportError(f"a header can't be sent: {error}") from error


def _headers(message: RawResponseMessage) -> dict[str, str]:
    check_header_size(message.raw_headers)
    headers: dict[str, str] = {}
    for raw_name, raw_value in message.raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _read(payload: StreamReader, limit: int) -> tuple[bytes, bool]:
    """The body's beginning, and whether that is all of it."""
    body = b""
    while not payload.at_eof():
        body += await payload.read(limit + 1 - len(body))
        if len(body) > limit:
            return body[:limit], False
    return body, True
