"""Connections over which both transports speak HTTP/1.1, opened to checked addresses only."""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from time import monotonic
from typing import Any, ClassVar, cast

from thorn_core.errors import TransportError, TransportTimeout
from thorn_core.recipients import RecipientURL, parse_url
from thorn_core.transports.answers import BadAnswer, Reader
from thorn_core.transports.descriptors import Descriptor, descriptors
from thorn_core.transports.idle import IdleConnections, Origin
from thorn_core.transports.limits import default_ssl_context
from thorn_core.transports.resolution import Resolver, resolve
from thorn_core.values import Request, Response

# Seconds that an address gets to answer at least, where there are many: round trips around the
# world for TCP and TLS. But never more than half the time that is left, so that others get theirs.
SHORTEST_SHARE = 1.0


class Http1Transport:
    """Performs requests on kept connections; a subclass says what reads the answers.

    A connection is used again only if its last answer ended where its framing says, and nothing has
    arrived since (RFC 9112 section 9.2).

    A request is made a second time in one case: a kept connection turns out to be closed, and not
    one byte of an answer came. The recipient may have acted on it; but a failed attempt would be
    retried with the same `webhook-id` all the same (RFC 9110 section 9.2.2), only later. After any
    byte of an answer, it is never repeated.

    Attributes:
        make_reader: Makes the reader of a new connection.
    """

    make_reader: ClassVar[type[Reader]]

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = 256,
        idle_timeout: float = 30.0,
    ) -> None:
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._idle: IdleConnections[Connection] = IdleConnections(
            most=max_connections,
            timeout=idle_timeout,
            lost=lambda connection: not connection.quiet(),
            close=Connection.abort,
        )
        descriptors().pools.add(self._idle)

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused; nothing was sent.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or an answer that can't be used.
        """
        url = parse_url(request.url)
        data = request_head(request, url) + request.body
        origin = (url.scheme, url.host, url.port, id(request.validators))
        connection = self._idle.take(origin)
        if connection is not None:
            try:
                return await self._exchange(connection, data, request)
            except _Stale:
                pass
        connection = await self._connect(origin, url, request)
        return await self._exchange(connection, data, request)

    async def _exchange(self, connection: Connection, data: bytes, request: Request) -> Response:
        keep = False
        try:
            response = await connection.exchange(data, request.method, request.response_limit)
            keep = request.keepalive and connection.reusable
        finally:
            if keep and not descriptors().scarce:
                self._idle.put(connection)
            else:
                connection.abort()
        return response

    async def _connect(self, origin: Origin, url: RecipientURL, request: Request) -> Connection:
        deadline = monotonic() + request.connect_timeout
        stage = f"{url.host} could not be resolved in time"
        try:
            async with asyncio.timeout(request.connect_timeout):
                addresses = await resolve(
                    url.host,
                    url.port,
                    request.validators,
                    resolver=self._resolver,
                    owner=request.owner,
                )
                stage = "too many connections are open"
                party = (request.owner, url.recipient if request.owner is None else None)
                descriptor = await descriptors().take(party)
        except TimeoutError:
            raise TransportTimeout(f"no connection to {url.recipient} in time: {stage}") from None
        try:
            return await self._open(addresses, deadline, origin, request, descriptor)
        except BaseException:
            descriptor.give()
            raise

    async def _open(
        self,
        addresses: tuple[str, ...],
        deadline: float,
        origin: Origin,
        request: Request,
        descriptor: Descriptor,
    ) -> Connection:
        scheme, host, port, _ = origin
        loop = asyncio.get_running_loop()
        context = None
        if scheme == "https":
            context = self._ssl_context or default_ssl_context()

        def made() -> Connection:
            return Connection(origin, request.validators, self.make_reader(), descriptor, loop)

        where, failure = _where(origin), ""
        for number, address in enumerate(addresses):
            left = deadline - monotonic()
            if left <= 0:
                break
            share = max(left / (len(addresses) - number), min(left / 2, SHORTEST_SHARE))
            try:
                async with asyncio.timeout(share):
                    _, connection = await loop.create_connection(
                        made,
                        address,
                        port,
                        ssl=context,
                        server_hostname=host if context is not None else None,
                    )
            except ssl.SSLError as error:
                problem = _tls_problem(error)
                raise TransportError(f"no TLS connection to {where}: {problem}") from error
            except TimeoutError:
                continue
            except OSError as error:
                failure = _problem(error)
            else:
                return connection
        if failure:
            raise TransportError(f"no connection to {where}: {failure}")
        raise TransportTimeout(f"no connection to {where} in time")

    async def close(self) -> None:
        """Close every connection."""
        self._idle.close()
        # The loop closes sockets in its next round; whoever stops it now would leave them open.
        await asyncio.sleep(0)


class _Stale(Exception):  # noqa: N818 - never leaves this file
    """A kept connection turned out to be closed before any answer."""


class Connection(asyncio.Protocol):
    """One connection; one request at a time.

    Args:
        origin: What it was opened for.
        validators: Which passed its address; kept, so that their identity stays theirs.
        reader: Reads its answers.
        descriptor: Is given back once it is closed.
        loop: The event loop.
    """

    def __init__(
        self,
        origin: Origin,
        validators: tuple[Any, ...],
        reader: Reader,
        descriptor: Descriptor,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.origin = origin
        self.party = descriptor.party
        self.validators = validators
        self.used = False
        self.idle_since = 0.0
        self.reusable = False
        self._reader = reader
        self._descriptor = descriptor
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._problem = "the connection closed without an answer"
        self._answered = False
        # There while an answer is expected; whatever arrives otherwise closes the connection.
        self._waiter: asyncio.Future[Response] | None = None
        self._poll: select.poll | None = None

    async def exchange(self, data: bytes, method: str, response_limit: int) -> Response:
        """Send a request and wait for its answer.

        Raises:
            TransportError: There is no answer, or none that can be used.
        """
        if self._lost or self._transport is None:
            raise self._gone()
        self._reader.begin(method, response_limit)
        self._answered = self.reusable = False
        self._waiter = self._loop.create_future()
        self._transport.write(data)
        return await self._waiter

    def quiet(self) -> bool:
        """Whether it is open and nothing has arrived, read from the socket or not."""
        if self._lost or self._transport is None:
            return False
        if self._poll is None:
            # Under eventlet there is no poll(); what it hasn't read yet is found out later.
            if not hasattr(select, "poll"):
                return True
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def abort(self) -> None:
        """Close the connection at once."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._waiter is None:
            self._problem = "the server sent data before the request"
            self.abort()
            return
        self._answered = True
        try:
            complete = self._reader.feed(data)
        except BadAnswer as error:
            self._fail(str(error))
            return
        if complete:
            self._finish()

    def eof_received(self) -> None:
        """Take the end of what the recipient sends."""
        if self._waiter is not None:
            self._ended()
        self._lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection."""
        if self._waiter is not None:
            if exc is None:
                self._ended()
            elif self._answered:
                self._fail("the connection was reset before the answer was complete")
            else:
                self._settle(self._gone())
        self._lost = True
        self._descriptor.give()

    def _ended(self) -> None:
        if not self._answered:
            self._settle(self._gone())
            return
        try:
            self._reader.end()
        except BadAnswer as error:
            self._fail(str(error))
        else:
            self._finish()

    def _finish(self) -> None:
        assert self._reader.response is not None
        assert self._transport is not None
        # An answer that came before the request was sent leaves the rest of it in the way.
        sent = not self._transport.get_write_buffer_size()
        self.reusable = self._reader.reusable and sent
        self._settle(self._reader.response)

    def _fail(self, problem: str) -> None:
        self._settle(TransportError(f"{_where(self.origin)}: {problem}"))
        self.abort()

    def _settle(self, outcome: Response | Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if isinstance(outcome, Response):
            waiter.set_result(outcome)
        else:
            waiter.set_exception(outcome)

    def _gone(self) -> Exception:
        if self.used:
            return _Stale()
        return TransportError(f"{_where(self.origin)}: {self._problem}")


def _where(origin: Origin) -> str:
    _, host, port, _ = origin
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def request_head(request: Request, url: RecipientURL) -> bytes:
    """The request line and the headers (RFC 9112 section 3).

    Raises:
        TransportError: A header holds a line break, a NUL or a character beyond Latin-1.
    """
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
        raise TransportError("a header of the request holds a line break or NUL; remove it")
    try:
        return text.encode("latin-1") + b"\r\n\r\n"
    except UnicodeEncodeError:
        raise TransportError(
            "a header of the request holds a character beyond Latin-1; encode it"
        ) from None


def _problem(error: OSError) -> str:
    """What went wrong, without the address: a subscription's owner may read this."""
    if error.errno:
        return os.strerror(error.errno).lower()
    return "the connection could not be opened"


def _tls_problem(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return (error.reason or "the handshake failed").replace("_", " ").lower()
