"""The contract of transports: broken and malicious responses."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from thorn_core.errors import TransportError
from thorn_core.ports.transport import Transport
from thorn_core.testing.raw_server import RawConnection, RawServer
from thorn_core.testing.transport_contract.kit import TransportKit, resolving
from thorn_core.values import Response

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 299 EVIL\r\nContent-Length: 4\r\n\r\nevil"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# Responses that are complete by their own framing: the bytes, the status and the body.
COMPLETE = {
    "surplus bytes": (OK + b"surplus", 200, b"ok"),
    "a length in characters": (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\né✓".encode(),
        200,
        b"\xc3\xa9",
    ),
    "a second answer": (OK + EVIL, 200, b"ok"),
    "half a second answer": (OK + EVIL[:20], 200, b"ok"),
    "an empty line behind it": (OK + b"\r\n", 200, b"ok"),
    "chunks and surplus bytes": (CHUNKED + b"2\r\nok\r\n0\r\n\r\nsurplus", 200, b"ok"),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", 204, b""),
    "204 in chunks": (
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        204,
        b"",
    ),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "101 that nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n\0\0",
        101,
        b"",
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK,
        200,
        b"ok",
    ),
    "a folded header": (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "the same length twice": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "trailers": (CHUNKED + b"2;a=b\r\nok\r\n0\r\nX-T: u\r\n\r\n", 200, b"ok"),
    "a header of 9 KB": (
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "63 KiB of headers": (
        b"HTTP/1.1 200 OK\r\n"
        + (b"X-A: " + b"b" * 93 + b"\r\n") * 640
        + b"Content-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
}
# Invalid responses, whether the recipient then closes the connection or not.
UNUSABLE = {
    "another protocol": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "an HTTP/2 preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "an echo": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a length of 40 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nok",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a CR in a header": b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"2\r\nokok\r\n0\r\n\r\n",
    "17 interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK,
    "3,000 headers": b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 3000 + b"Content-Length: 0\r\n\r\n",
    "65 KiB of headers": b"HTTP/1.1 200 OK\r\n" + (b"X-A: " + b"b" * 93 + b"\r\n") * 670 + b"\r\n",
}
# Endless responses: the beginning, and the repeated part.
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "a reason phrase": (b"HTTP/1.1 200 ", b"a"),
    "empty lines": (b"", b"\r\n"),
    "a chunk extension": (CHUNKED + b"2;", b"a"),
    "chunk extensions": (CHUNKED, b"1;" + b"a" * 1000 + b"\r\na\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"X-A: b\r\n"),
}
# Truncated responses: the recipient closes the connection in the middle.
CUT = {
    "head": b"HTTP/1.1 200 OK\r\nX-A:",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "chunk": CHUNKED + b"5\r\nab",
    "last chunk": CHUNKED + b"2\r\nok\r\n0\r\n",
}


def answering(*answers: bytes) -> RawServer:
    """Run a server that sends these responses on each connection, and then closes it."""

    def behave(connection: RawConnection) -> None:
        for answer in answers:
            connection.request()
            connection.write(answer)

    return RawServer(behave)


@contextmanager
def holding(*answers: bytes) -> Iterator[RawServer]:
    """Run such a server that leaves connections open until the other side closes them."""

    def behave(connection: RawConnection) -> None:
        for answer in answers:
            connection.request()
            connection.write(answer)
        connection.wait_closed()

    with RawServer(behave) as server:
        yield server


class Hostility(TransportKit):
    """A transport withstands every response, and accepts complete ones."""

    @pytest.mark.parametrize("kind", COMPLETE)
    def test_a_complete_answer_counts_whatever_follows_it(self, kind: str) -> None:
        answer, status, body = COMPLETE[kind]
        with holding(answer) as server:
            response = self.send(self.request(server.url))
            assert (response.status, response.body) == (status, body)
            assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "kind",
        [kind for kind in COMPLETE if "surplus" in kind or "behind" in kind or "204" in kind],
    )
    def test_a_connection_with_surplus_bytes_is_not_used_again(self, kind: str) -> None:
        answer, status, _ = COMPLETE[kind]

        async def scenario(transport: Transport) -> list[int]:
            return [(await transport.send(self.request(server.url))).status for _ in range(2)]

        with holding(answer, EVIL) as server:
            assert self.use(scenario) == [status, status]
            assert (server.connections, len(server.requests)) == (2, 2)

    @pytest.mark.parametrize("closes", [False, True], ids=["stays open", "closes"])
    @pytest.mark.parametrize("kind", UNUSABLE)
    def test_an_unusable_answer_is_an_error_at_once(self, kind: str, closes: bool) -> None:  # noqa: FBT001
        answer = UNUSABLE[kind]
        with answering(answer) if closes else holding(answer) as server:
            with pytest.raises(TransportError):
                self.send(self.request(server.url))
            assert len(server.requests) == 1

    @pytest.mark.parametrize("kind", ENDLESS)
    def test_an_answer_without_an_end_is_given_up(self, kind: str) -> None:
        beginning, more = ENDLESS[kind]
        sent = []

        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            connection.write(beginning)
            block = more * (65536 // len(more))
            while True:
                connection.write(block)
                sent.append(len(block))

        with RawServer(behave) as server, pytest.raises(TransportError):
            self.send(self.request(server.url, response_limit=100))
        # The operating system's buffers come on top of the bytes that the transport reads.
        assert sum(sent) < 16 * 2**20

    @pytest.mark.parametrize("kind", CUT)
    def test_a_request_is_not_repeated_after_part_of_an_answer(self, kind: str) -> None:
        async def scenario(transport: Transport) -> None:
            await transport.send(self.request(server.url))
            with pytest.raises(TransportError):
                await transport.send(self.request(server.url))

        with answering(OK, CUT[kind]) as server:
            self.use(scenario)
            assert len(server.requests) == 2

    def test_a_request_is_repeated_once_where_a_kept_connection_was_closed(self) -> None:
        async def scenario(transport: Transport) -> None:
            await transport.send(self.request(server.url))
            with pytest.raises(TransportError):
                await transport.send(self.request(server.url))

        def behave(connection: RawConnection) -> None:
            connection.request()
            if server.connections == 1:
                connection.write(OK)
                connection.request()

        with RawServer(behave) as server:
            self.use(scenario)
            assert (server.connections, len(server.requests)) == (2, 3)

    @pytest.mark.parametrize("early", [EVIL, EVIL[:20], b"\r\n", b"HTTP/1.1 103 E\r\n\r\n"])
    @pytest.mark.parametrize("noticed", [False, True], ids=["still in the socket", "read"])
    def test_bytes_that_came_early_never_answer_a_request(
        self,
        early: bytes,
        noticed: bool,  # noqa: FBT001
    ) -> None:
        asked, sent = threading.Event(), threading.Event()

        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.write(OK)
            if server.connections == 1:
                asked.wait()
                connection.write(early)
                sent.set()
                connection.request()
                connection.write(EVIL.removeprefix(early))
            connection.wait_closed()

        async def scenario(transport: Transport) -> Response:
            await transport.send(self.request(server.url))
            asked.set()
            sent.wait()  # Block the loop, so that it can't read the received bytes.
            if noticed:
                await asyncio.sleep(0.01)
            return await transport.send(self.request(server.url))

        with RawServer(behave) as server:
            assert self.use(scenario).status == 200
            assert (server.connections, len(server.requests)) == (2, 2)

    def test_a_reset_behind_a_complete_answer_is_no_failure(self) -> None:
        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.write(OK)
            connection.reset()

        async def scenario(transport: Transport) -> list[int]:
            return [(await transport.send(self.request(server.url))).status for _ in range(2)]

        with RawServer(behave) as server:
            assert self.use(scenario) == [200, 200]
            assert len(server.requests) == 2

    def test_a_reset_is_no_end_of_a_body(self) -> None:
        received = threading.Event()

        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            received.wait(0.05)
            connection.reset()

        with RawServer(behave) as server, pytest.raises(TransportError):
            self.send(self.request(server.url))

    def test_an_answer_before_the_request_was_read_counts(self) -> None:
        refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"

        def behave(connection: RawConnection) -> None:
            connection.socket.recv(1)
            connection.write(refusal if server.connections == 1 else OK)
            asked.wait()

        async def scenario(transport: Transport) -> list[int]:
            large = self.request(server.url, body=b"x" * 2**24)
            first = await transport.send(large)
            second = await transport.send(self.request(server.url))
            return [first.status, second.status]

        asked = threading.Event()
        with RawServer(behave) as server:
            assert self.use(scenario) == [413, 200]
            asked.set()
            assert server.connections == 2

    def test_the_end_of_a_connection_ends_a_body_without_a_length(self) -> None:
        with answering(b"HTTP/1.0 200 OK\r\n\r\nall of it") as server:
            assert self.send(self.request(server.url)).body == b"all of it"

    def test_a_head_request_has_an_answer_without_a_body(self) -> None:
        async def scenario(transport: Transport) -> list[Response]:
            requests = [self.request(server.url, method=method) for method in ("HEAD", "POST")]
            return [await transport.send(request) for request in requests]

        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        with holding(head, OK) as server:
            assert [response.body for response in self.use(scenario)] == [b"", b"ok"]

    def test_a_slow_answer_is_ended_by_cancelling(self) -> None:
        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.write(b"HTTP/1.1 200 OK\r\nX")
            connection.wait_closed()
            closed.set()

        async def scenario(transport: Transport) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await transport.send(self.request(server.url))
            async with asyncio.timeout(5):
                await asyncio.to_thread(closed.wait, 5)

        closed = threading.Event()
        with RawServer(behave) as server:
            self.use(scenario)
            assert closed.is_set()

    def test_a_tls_connection_that_just_ends_does_not_undo_a_complete_answer(self) -> None:
        authority = pytest.importorskip("trustme").CA()
        server_side, client_side = self.contexts(authority, "good.example")

        def behave(connection: RawConnection) -> None:
            connection.request()
            connection.write(OK)
            connection.socket.shutdown(socket.SHUT_RDWR)  # No close_notify.

        with RawServer(behave, ssl_context=server_side) as server:
            response = self.send(
                self.request(f"https://good.example:{server.port}/"),
                resolver=resolving([["127.0.0.1"]], []),
                ssl_context=client_side,
            )
            assert (response.status, response.body) == (200, b"ok")

    def test_an_address_that_does_not_answer_leaves_time_for_the_next(self) -> None:
        with holding(OK) as server, unanswering("127.0.0.2", server.port):
            resolver = resolving([["127.0.0.2", "127.0.0.1"]], [])
            request = self.request(f"http://two.example:{server.port}/", connect_timeout=0.4)
            assert self.send(request, resolver=resolver).status == 200

    def test_errors_tell_no_address(self) -> None:
        with RawServer(lambda connection: None) as gone:
            port = gone.port
        resolver = resolving([["127.0.0.3"]], [])
        with pytest.raises(TransportError) as failure:
            self.send(self.request(f"http://name.example:{port}/"), resolver=resolver)
        assert "127.0.0.3" not in str(failure.value)
        assert "name.example" in str(failure.value)


@contextmanager
def unanswering(host: str, port: int) -> Iterator[None]:
    """Yield an address that drops new connections, because its queue is full."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(0)
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):
                one.settimeout(0)
                one.connect_ex((host, port))
            yield
