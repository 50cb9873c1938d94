"""The httpx transport: always there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import lru_cache
from time import monotonic
from typing import Any

import attrs
import httpx

from thorn_core.errors import TransportError, TransportTimeout
from thorn_core.recipients import RecipientURL, parse_url
from thorn_core.transports.idle import IdleConnections, Origin
from thorn_core.transports.limits import check_header_size, default_ssl_context
from thorn_core.transports.resolution import Resolver, resolve, system_resolver
from thorn_core.values import Request, Response


@attrs.define(eq=False, slots=True)
class _Lane:
    """One connection to one checked address."""

    origin: Origin
    validators: tuple[Any, ...]
    transport: httpx.AsyncHTTPTransport
    authority: str
    used: bool = False
    idle_since: float = 0.0


class HttpxTransport:
    """Performs requests by httpx, each on a connection of its own that is kept for the next.

    A pool of one connection each: httpx's own pool looks at all its requests for each one, which
    makes fifty at once slower than one after the other.

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
        self._idle: IdleConnections[_Lane] = IdleConnections(
            most=max_connections,
            timeout=idle_timeout,
            lost=lambda lane: False,  # httpx doesn't tell before the next request
            close=self._drop,
        )
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or what came back isn't HTTP.
        """
        url = parse_url(request.url)
        origin = (url.scheme, url.host, url.port, id(request.validators))
        lane = self._idle.take(origin)
        if lane is not None:
            try:
                return await self._perform(lane, request, url)
            except _Stale:
                pass  # it was closed while it was idle, so nothing was answered: once more, anew
        return await self._connect(origin, request, url)

    async def _connect(self, origin: Origin, request: Request, url: RecipientURL) -> Response:
        deadline = monotonic() + request.connect_timeout
        try:
            async with asyncio.timeout(request.connect_timeout):
                addresses = await resolve(
                    url.host, url.port, request.validators, resolver=self._resolver
                )
        except TimeoutError as error:
            raise TransportTimeout(f"{url.host} could not be resolved in time") from error
        failure: Exception | None = None
        for address in addresses:
            left = deadline - monotonic()
            if left <= 0:
                break
            try:
                return await self._perform(
                    self._lane(origin, request.validators, address), request, url, left
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        where = f"{url.host}:{url.port}"
        if isinstance(failure, httpx.ConnectError):
            raise TransportError(f"no connection to {where}: {failure}") from failure
        raise TransportTimeout(f"no connection to {where} in time") from failure

    def _lane(self, origin: Origin, validators: tuple[Any, ...], address: str) -> _Lane:
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        transport = httpx.AsyncHTTPTransport(
            verify=self._ssl_context or default_ssl_context(), limits=one, trust_env=False
        )
        host = f"[{address}]" if ":" in address else address
        return _Lane(origin, validators, transport, f"{origin[0]}://{host}:{origin[2]}")

    async def _perform(
        self, lane: _Lane, request: Request, url: RecipientURL, connect: float | None = None
    ) -> Response:
        headers = [("Host", url.text.split("/", 3)[2]), *request.headers.items()]
        if not request.keepalive:
            headers.append(("Connection", "close"))
        extensions: dict[str, Any] = {"timeout": {"connect": connect}}
        if url.scheme == "https":
            extensions["sni_hostname"] = url.host
        made = httpx.Request(
            request.method,
            _url(lane.authority, url.path),
            headers=headers,
            content=request.body,
            extensions=extensions,
        )
        keep = False
        try:
            answer = await lane.transport.handle_async_request(made)
            response, complete = await _read(answer, request.response_limit)
            keep = complete and request.keepalive
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise
        except (httpx.TransportError, httpx.StreamError) as error:
            if lane.used and isinstance(
                error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError
            ):
                raise _Stale from error
            raise TransportError(_explained(error, url)) from error
        finally:
            if keep:
                self._idle.put(lane)
            else:
                # The connection goes at once, whatever was cancelled.
                await _close(lane)
        return response

    def _drop(self, lane: _Lane) -> None:
        closing = asyncio.get_running_loop().create_task(_close(lane))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every connection."""
        self._idle.close()
        while self._closing:
            await asyncio.wait(self._closing)


async def _close(lane: _Lane) -> None:
    with contextlib.suppress(Exception):
        await lane.transport.aclose()


@lru_cache(maxsize=4096)
def _url(authority: str, path: str) -> httpx.URL:
    return httpx.URL(authority + path)


class _Stale(Exception):  # noqa: N818 - never leaves this file
    """A kept connection turned out to be closed."""


async def _read(answer: httpx.Response, limit: int) -> tuple[Response, bool]:
    """The response, and whether all of it was read."""
    headers: dict[str, str] = {}
    check_header_size(answer.headers.raw)
    for name, value in answer.headers.multi_items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    stream = answer.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    body, complete = b"", True
    try:
        async for chunk in stream:
            body += chunk
            if len(body) > limit:
                body, complete = body[:limit], False
                break
    finally:
        await stream.aclose()
    return Response(status=answer.status_code, headers=headers, body=body), complete


def _explained(error: Exception, url: RecipientURL) -> str:
    where = f"{url.host}:{url.port}"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"{where} didn't answer in HTTP: {error}"
    if isinstance(error, httpx.ReadError | httpx.WriteError):
        return f"{where} reset the connection"
    return f"{where} failed: {error}"
