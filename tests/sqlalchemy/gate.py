"""A gate in front of a database server: it can be shut while programs are at work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from sqlalchemy import make_url

from thorn_core.testing.recipient import close_server

PORTS = {"postgresql": 5432, "mysql": 3306}


class Gate:
    """A TCP proxy on a thread of its own; use it as a context manager.

    Args:
        url: Of the database behind it.
        listening: Whether anybody listens from the beginning.
    """

    def __init__(self, url: str, *, listening: bool = True) -> None:
        target = make_url(url)
        port = target.port or PORTS[target.get_backend_name()]
        self._target = (target.host or "127.0.0.1", port)
        self._open = True
        self._tries = 0
        self._serving: set[asyncio.Task[Any]] = set()
        # Holds the port while nobody listens.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = target.set(host="127.0.0.1", port=self._port).render_as_string(
            hide_password=False
        )
        if listening:
            self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._leave)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    @property
    def tries(self) -> int:
        """How many connections were asked for."""
        return self._tries

    def listen(self) -> None:
        """Begin to listen."""
        self._run(self._listen)

    def leave(self) -> None:
        """Listen no more, and break the connections."""
        self._run(self._leave)

    def shut(self) -> None:
        """Break the connections, and every new one at once."""
        self._open = False
        self._run(self._break)

    def open(self) -> None:
        """Let connections through again."""
        self._open = True

    def _run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    async def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self._port))
        self._server = await asyncio.start_server(self._serve, sock=listening)

    async def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        await self._break()

    async def _break(self) -> None:
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving, timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tries += 1
        if not self._open:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        writers = [writer]
        # To be cancelled is how it ends, which asyncio's server doesn't expect.
        with contextlib.suppress(asyncio.CancelledError, OSError):
            try:
                there, back = await asyncio.open_connection(*self._target)
                writers.append(back)
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                for each in writers:
                    _reset(each)
                self._serving.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
