"""A server of raw bytes, for recipients that violate HTTP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Self

PATIENCE = 10.0


class RawConnection:
    """One accepted connection, with blocking calls.

    Args:
        server: The server that accepted the connection.
        connection: The socket.
    """

    def __init__(self, server: RawServer, connection: socket.socket) -> None:
        self.socket = connection
        self._server = server
        self._read = b""

    def request(self) -> bytes:
        """Read one request with its body.

        Raises:
            EOFError: The other side closed the connection too early.
        """
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, _ = self._read.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        size = len(head) + 4 + length
        while len(self._read) < size:
            self._more()
        request, self._read = self._read[:size], self._read[size:]
        self._server.requests.append(request)
        return request

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def finish(self) -> None:
        """Send the end of the stream; continue reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_closed(self) -> None:
        """Wait until the other side closes the connection."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._read += data


class RawServer:
    """Accepts connections on loopback and runs a function for each in its own thread.

    Args:
        behave: Handles a connection; the server closes it afterwards.
        ssl_context: Enables TLS.

    Attributes:
        connections: The number of accepted connections.
        requests: The requests from `RawConnection.request`, in order.
    """

    def __init__(
        self,
        behave: Callable[[RawConnection], object],
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._behave = behave
        self._ssl_context = ssl_context
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._run(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        # Closing alone doesn't wake a thread in accept() or recv().
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(PATIENCE)
        self._listening.close()

    @property
    def url(self) -> str:
        """The server's URL, with a slash at the end."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self.port}/"

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            self.connections += 1
            self._open.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self._ssl_context is not None:
                connection = self._ssl_context.wrap_socket(connection, server_side=True)
                stack.enter_context(connection)
            self._behave(RawConnection(self, connection))
