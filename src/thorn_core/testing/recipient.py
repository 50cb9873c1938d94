"""A local recipient: an HTTP server that records, verifies, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import attrs

from thorn_core import receiver
from thorn_core.codecs import Decoder
from thorn_core.errors import ThornError
from thorn_core.recipients.urls import shown
from thorn_core.values import Message

LINE_LIMIT = 64 * 1024
BODY_LIMIT = 16 * 1024 * 1024
REASONS = {200: "OK", 204: "No Content", 410: "Gone", 429: "Too Many Requests"}


@attrs.frozen(kw_only=True)
class Received:
    """A received request.

    Attributes:
        method: `POST`.
        path: Path and query.
        headers: The headers by lower-case name.
        body: The body as received.
        at: The time of arrival (aware, UTC).
        verified: Whether the signature is valid; None if the recipient has no secret.
        message: The verified message.
        error: The reason for a failed verification.
    """

    method: str
    path: str = attrs.field(repr=shown)
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    at: datetime
    verified: bool | None = None
    message: Message | None = None
    error: str | None = None

    @property
    def json(self) -> Any:
        """The decoded JSON body."""
        return json.loads(self.body)


# Writes a response to a request and a stream; returns True to keep the connection.
Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[bool]]


class LocalRecipient:
    """A recipient on this machine, with its own thread and event loop.

    Use it with `with` or, in async code, `async with`; both work inside a running event loop.

    Args:
        secret: Verifies requests; None accepts all.
        scheme: The signature scheme.
        decoders: Further decoders for verified requests by content type, such as `app.decoders`.
        host: The address to listen on.
        port: The port to listen on; 0 is any free port.
        ssl_context: Enables HTTPS.
        limit: The maximum number of stored requests; beyond it, the oldest are dropped.

    Example:
        >>> import httpx
        >>> with LocalRecipient() as recipient:
        ...     recipient.answer(status=503, times=1)
        ...     first, second = (httpx.post(recipient.url, json={"n": n}) for n in range(2))
        ...     [request.json for request in recipient.received]
        [{'n': 0}, {'n': 1}]
        >>> first.status_code, second.status_code
        (503, 200)
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        scheme: str = "standard-webhooks",
        decoders: Mapping[str, Decoder] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        limit: int = 10_000,
    ) -> None:
        self.secret = secret
        self._scheme, self._decoders = scheme, decoders
        self._host, self._port = host, port
        self._ssl_context = ssl_context
        self._received: deque[Received] = deque(maxlen=limit)
        self._arrived = threading.Condition()
        self._total = 0
        self._connections = 0
        self._always: Behaviour = _Answer(status=200)
        self._next: deque[Behaviour] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life cycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The host or port isn't available.
        """
        # Always asyncio's own loop: `close_server` depends on how it accepts connections.
        loop = asyncio.SelectorEventLoop()
        thread = threading.Thread(
            target=_serve_on, args=(loop,), name="thorn-recipient", daemon=True
        )
        thread.start()
        try:
            self._server = asyncio.run_coroutine_threadsafe(self._listen(), loop).result()
        except OSError:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            raise
        self._loop, self._thread = loop, thread
        self._port = self._server.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._serve,
            self._host,
            self._port,
            ssl=self._ssl_context,
            limit=LINE_LIMIT,
            backlog=1024,
        )

    def stop(self) -> None:
        """Close every connection and stop listening; calling it twice is safe."""
        loop, thread, self._thread = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._finish(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    async def _finish(self) -> None:
        await close_server(self._server)
        # Cancel until each task has ended: a task may swallow a cancellation if its awaitable
        # completes at the same moment.
        while pending := [task for task in self._tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.2)
        await _rounds()

    @property
    def url(self) -> str:
        """The recipient's URL, with a slash at the end."""
        scheme = "https" if self._ssl_context else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}/"

    # -- received requests

    @property
    def received(self) -> tuple[Received, ...]:
        """The received requests in order."""
        with self._arrived:
            return tuple(self._received)

    @property
    def connections(self) -> int:
        """The number of accepted connections."""
        return self._connections

    def wait_for(self, number: int, timeout: float = 10.0) -> tuple[Received, ...]:
        """Wait until the given number of requests has arrived in total.

        Args:
            number: The number of requests.
            timeout: Seconds.

        Raises:
            TimeoutError: Fewer requests arrived.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._total >= number, timeout):
                raise TimeoutError(
                    f"{self._total} of {number} requests arrived at {self.url} in {timeout} s"
                )
            return tuple(self._received)

    async def await_for(self, number: int, timeout: float = 10.0) -> tuple[Received, ...]:  # noqa: ASYNC109
        """Wait like `wait_for` without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for, number, timeout)

    def clear(self) -> None:
        """Drop the received requests."""
        with self._arrived:
            self._received.clear()
            self._total = 0

    # -- responses

    def answer(
        self,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        delay: float = 0.0,
        times: int | None = None,
    ) -> None:
        """Send this response from now on, or to a number of requests.

        Args:
            status: The response's status.
            headers: The response's headers.
            body: The response's body.
            delay: Seconds before the response.
            times: The number of requests, before the recipient returns to its previous behaviour.
                Several calls queue up.
        """
        self.behave(_Answer(status, dict(headers or {}), body, delay), times=times)

    def hang(self, *, times: int | None = None) -> None:
        """Receive the request and never respond."""
        self.behave(_hang, times=times)

    def reset(self, *, times: int | None = None) -> None:
        """Receive the request and reset the connection."""
        self.behave(_reset, times=times)

    def garbage(self, *, times: int | None = None) -> None:
        """Respond with data that isn't HTTP."""
        self.behave(_garbage, times=times)

    def trickle(self, *, interval: float = 1.0, times: int | None = None) -> None:
        """Respond one byte at a time.

        Args:
            interval: Seconds between bytes.
            times: The number of requests.
        """
        self.behave(_Trickle(interval), times=times)

    def endless_headers(self, *, times: int | None = None) -> None:
        """Begin a response and send headers for ever."""
        self.behave(_endless_headers, times=times)

    def huge(self, *, size: int = 2**30, times: int | None = None) -> None:
        """Respond with a huge body.

        Args:
            size: The size in bytes.
            times: The number of requests.
        """
        self.behave(_Huge(size), times=times)

    def behave(self, behaviour: Behaviour, *, times: int | None = None) -> None:
        """Respond by calling a function.

        Args:
            behaviour: An async function that takes the `Received` and a stream to write to, and
                returns True to keep the connection.
            times: The number of requests; None is unlimited.
        """
        if times is None:
            self._next.clear()
            self._always = behaviour
        else:
            self._next.extend([behaviour] * times)

    # -- the server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # closed by the other side, no HTTP, or stopping
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= BODY_LIMIT:
            raise ValueError(f"a body of {length} bytes")
        body = await reader.readexactly(length)
        request = self._verified(
            Received(method=method, path=path, headers=headers, body=body, at=datetime.now(UTC))
        )
        behaviour = self._next.popleft() if self._next else self._always
        with self._arrived:
            self._received.append(request)
            self._total += 1
            self._arrived.notify_all()
        kept = await behaviour(request, writer)
        return kept and headers.get("connection", "").lower() != "close"

    def _verified(self, request: Received) -> Received:
        if self.secret is None:
            return request
        try:
            message = receiver.verify(
                request.body,
                request.headers,
                self.secret,
                scheme=self._scheme,
                decoders=self._decoders,
            )
        except ThornError as error:
            return attrs.evolve(request, verified=False, error=str(error))
        return attrs.evolve(request, verified=True, message=message)


def _serve_on(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def close_server(server: asyncio.Server) -> None:
    """Stop accepting connections, and start the tasks of connections accepted so far.

    Otherwise a connection that arrives while asyncio's server closes would never be closed.

    Args:
        server: A server of the running event loop, which uses a selector.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    await _rounds()
    server.close()


async def _rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@attrs.frozen
class _Answer:
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    delay: float = 0.0

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        if self.delay:
            await asyncio.sleep(self.delay)
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Answer')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != 204:
            lines.append(f"Content-Length: {len(self.body)}")
        writer.write("\r\n".join((*lines, "", "")).encode("latin-1") + self.body)
        await writer.drain()
        return True


async def _hang(request: Received, writer: asyncio.StreamWriter) -> bool:
    await asyncio.get_running_loop().create_future()
    return False


async def _reset(request: Received, writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)  # Makes close() send a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return False


async def _garbage(request: Received, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
    await writer.drain()
    return False


@attrs.frozen
class _Trickle:
    interval: float

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(self.interval)
        return False


async def _endless_headers(request: Received, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        writer.write(b"X-Header-%d: %b\r\n" % (number, b"x" * 100))
        number += 1
        await writer.drain()
        await asyncio.sleep(0)


@attrs.frozen
class _Huge:
    size: int

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {self.size}\r\n\r\n".encode())
        chunk = b"x" * 65536
        for _ in range(0, self.size, len(chunk)):
            writer.write(chunk)
            await writer.drain()
        return False
