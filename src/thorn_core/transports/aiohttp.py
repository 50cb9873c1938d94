"""The aiohttp transport: the fast one; extra `fast`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from thorn_core.errors import SecurityError, TransportError, TransportTimeout
from thorn_core.recipients import check_address, ip_literal
from thorn_core.transports.limits import check_header_size, default_ssl_context
from thorn_core.transports.resolution import Resolver, resolve, system_resolver
from thorn_core.values import Request, Response

# Sets of validators that have a session of their own; an app has one, or one more for an event.
MOST_SESSIONS = 16
# Only what Thorn says is sent.
SKIPPED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
SERVED_CACHE = 10_000


class AiohttpTransport:
    """Performs requests by aiohttp, with keep-alive.

    Args:
        resolver: Looks names up.
        ssl_context: For TLS; None verifies certificates by the system's roots.
        max_connections: Connections at once, in all.
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
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._sessions: OrderedDict[tuple[Any, ...], aiohttp.ClientSession] = OrderedDict()
        # Origins that have answered: a connection to them may be a kept one that has gone stale.
        self._served: OrderedDict[str, None] = OrderedDict()

    async def send(self, request: Request) -> Response:
        """Perform the request.

        Raises:
            SecurityError: An address is refused.
            TransportTimeout: No connection within `connect_timeout`.
            TransportError: No connection, TLS failure, reset, or what came back isn't HTTP.
        """
        url = _url(request.url)
        session = self._sessions.get(request.validators) or await self._session(request.validators)
        host = url.host or ""
        literal = ip_literal(host)
        if literal is not None:
            check_address(literal, request.validators)
        origin = url.authority
        try:
            try:
                response = await _perform(session, url, request)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if origin not in self._served or isinstance(error, aiohttp.ClientConnectorError):
                    raise
                response = await _perform(session, url, request)
        except aiohttp.ClientError as error:
            raise _translated(error, url) from error
        except TimeoutError as error:
            raise TransportTimeout(f"no connection to {_where(url)} in time") from error
        except (ValueError, OSError) as error:
            raise TransportError(f"{_where(url)} failed: {error}") from error
        if origin not in self._served:
            self._served[origin] = None
            if len(self._served) > SERVED_CACHE:
                self._served.popitem(last=False)
        return response

    async def _session(self, validators: tuple[Any, ...]) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_CheckingResolver(validators, self._resolver),
            use_dns_cache=False,
            ssl=self._ssl_context or default_ssl_context(),
            limit=0,
            keepalive_timeout=self._idle_timeout,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=SKIPPED,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._sessions[validators] = session
        if len(self._sessions) > MOST_SESSIONS:
            _, oldest = self._sessions.popitem(last=False)
            # Requests may be under way on it: its connections go when they end.
            asyncio.get_running_loop().call_later(3600, asyncio.ensure_future, oldest.close())
        return session

    async def close(self) -> None:
        """Close every connection."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()


class _CheckingResolver(AbstractResolver):
    """Gives aiohttp only addresses that pass the validators."""

    def __init__(self, validators: tuple[Any, ...], resolver: Resolver) -> None:
        self._validators = validators
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await resolve(host, port, self._validators, resolver=self._resolver)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


@lru_cache(maxsize=4096)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)


async def _perform(session: aiohttp.ClientSession, url: URL, request: Request) -> Response:
    headers = request.headers
    if not request.keepalive:
        headers = {**headers, "Connection": "close"}
    answer = await session.request(
        request.method,
        url,
        data=request.body,
        headers=headers,
        allow_redirects=False,
        timeout=_timeout(request.connect_timeout),
    )
    try:
        check_header_size(answer.raw_headers)
        limit, body = request.response_limit, b""
        content = answer.content
        while not content.at_eof() and len(body) <= limit:
            body += await content.read(limit + 1 - len(body))
        if len(body) > limit:
            body = body[:limit]
            answer.close()
    except BaseException:
        answer.close()
        raise
    answer.release()
    named: dict[str, str] = {}
    for name, value in answer.headers.items():
        key = name.lower()
        named[key] = f"{named[key]}, {value}" if key in named else value
    return Response(status=answer.status, headers=named, body=body)


def _where(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _translated(error: aiohttp.ClientError, url: URL) -> Exception:
    """What an aiohttp error is in the words of the contract."""
    where = _where(url)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SecurityError | TransportError):
            return cause
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return TransportTimeout(f"no connection to {where} in time")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return TransportError(f"no TLS connection to {where}: {error}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return TransportError(f"no connection to {where}: {error.os_error}")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return TransportError(f"{where} reset the connection")
    return TransportError(f"{where} didn't answer in HTTP: {error}")
