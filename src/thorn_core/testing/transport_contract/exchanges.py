"""The contract of transports: requests and ordinary responses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from thorn_core.errors import TransportError, TransportTimeout
from thorn_core.ports.transport import Transport
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.testing.transport_contract.kit import PATIENCE, TransportKit
from thorn_core.values import Response


class Exchanges(TransportKit):
    """A transport sends requests unchanged and reads the responses."""

    def test_a_request_arrives_as_it_is_and_nothing_is_added(
        self, recipient: LocalRecipient
    ) -> None:
        response = self.send(self.request(recipient.url + "path?a=1&b=%20"))
        assert response.status == 200
        (arrived,) = recipient.received
        assert (arrived.method, arrived.path, arrived.body) == (
            "POST",
            "/path?a=1&b=%20",
            b'{"n":1}',
        )
        names = set(arrived.headers) - {"connection"}
        assert names == {"host", "x-a", "content-length"}
        assert arrived.headers["host"] == recipient.url.split("/")[2]

    def test_a_response_is_read(self, recipient: LocalRecipient) -> None:
        recipient.answer(status=418, headers={"X-B": "2", "x-c": "3"}, body=b"tea")
        response = self.send(self.request(recipient.url))
        assert (response.status, response.body) == (418, b"tea")
        assert (response.headers["x-b"], response.headers["x-c"]) == ("2", "3")

    def test_a_response_without_a_body_is_read(self, recipient: LocalRecipient) -> None:
        recipient.answer(status=204)
        assert self.send(self.request(recipient.url)) == Response(status=204)

    def test_repeated_headers_are_joined(self, recipient: LocalRecipient) -> None:
        recipient.answer(headers={"X-B": "1", "x-b": "2"})
        assert self.send(self.request(recipient.url)).headers["x-b"] == "1, 2"

    def test_connections_are_kept(self, recipient: LocalRecipient) -> None:
        async def scenario(transport: Transport) -> None:
            for _ in range(5):
                await transport.send(self.request(recipient.url))

        self.use(scenario)
        assert (len(recipient.received), recipient.connections) == (5, 1)

    def test_connections_are_not_kept_without_keepalive(self, recipient: LocalRecipient) -> None:
        async def scenario(transport: Transport) -> None:
            for _ in range(2):
                await transport.send(self.request(recipient.url, keepalive=False))

        self.use(scenario)
        assert recipient.connections == 2
        assert recipient.received[0].headers["connection"] == "close"

    def test_a_kept_connection_that_was_closed_is_replaced(self, recipient: LocalRecipient) -> None:
        async def scenario(transport: Transport) -> Response:
            await transport.send(self.request(recipient.url))
            recipient.reset(times=1)
            return await transport.send(self.request(recipient.url))

        assert self.use(scenario).status == 200
        assert recipient.connections == 2

    def test_many_requests_at_once_are_made(self, recipient: LocalRecipient) -> None:
        async def scenario(transport: Transport) -> list[Response]:
            bodies = [str(number).encode() for number in range(50)]
            return await asyncio.gather(
                *(transport.send(self.request(recipient.url, body=body)) for body in bodies)
            )

        assert {response.status for response in self.use(scenario)} == {200}
        assert {int(r.body) for r in recipient.received} == set(range(50))

    def test_of_a_long_body_the_beginning_is_kept_and_the_connection_closed(
        self, recipient: LocalRecipient
    ) -> None:
        recipient.huge(size=2**30)

        async def scenario(transport: Transport) -> Response:
            response = await transport.send(self.request(recipient.url, response_limit=100))
            recipient.answer()
            await transport.send(self.request(recipient.url))
            return response

        assert self.use(scenario).body == b"x" * 100
        assert recipient.connections == 2

    def test_a_body_of_just_the_limit_is_kept_whole(self, recipient: LocalRecipient) -> None:
        recipient.answer(body=b"y" * 100)
        response = self.send(self.request(recipient.url, response_limit=100))
        assert response.body == b"y" * 100

    def test_cancelling_closes_the_connection(self, recipient: LocalRecipient) -> None:
        recipient.hang(times=1)

        async def scenario(transport: Transport) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await transport.send(self.request(recipient.url))
            await transport.send(self.request(recipient.url))

        self.use(scenario)
        assert recipient.connections == 2

    def test_a_trickle_takes_no_longer_than_it_may(self, recipient: LocalRecipient) -> None:
        recipient.trickle(interval=0.01)

        async def scenario(transport: Transport) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await transport.send(self.request(recipient.url))

        self.use(scenario)

    @pytest.mark.parametrize("fault", ["reset", "garbage", "endless_headers"])
    def test_what_is_no_response_is_an_error(self, recipient: LocalRecipient, fault: str) -> None:
        getattr(recipient, fault)()
        with pytest.raises(TransportError) as refusal:
            self.send(self.request(recipient.url))
        assert recipient.url.split("/")[2] in str(refusal.value) or "headers" in str(refusal.value)

    def test_an_answer_that_breaks_off_is_an_error(self, recipient: LocalRecipient) -> None:
        async def breaking(request: Any, writer: asyncio.StreamWriter) -> bool:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            return False

        recipient.behave(breaking)
        with pytest.raises(TransportError):
            self.send(self.request(recipient.url))

    def test_an_interim_response_is_passed_over(self, recipient: LocalRecipient) -> None:
        async def early(request: Any, writer: asyncio.StreamWriter) -> bool:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            return True

        recipient.behave(early)
        assert self.send(self.request(recipient.url)) == Response(
            status=201, headers={"content-length": "2"}, body=b"ok"
        )

    def test_a_body_up_to_the_end_of_the_connection_is_read(
        self, recipient: LocalRecipient
    ) -> None:
        async def closing(request: Any, writer: asyncio.StreamWriter) -> bool:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
            await writer.drain()
            writer.write_eof()
            return False

        recipient.behave(closing)
        assert self.send(self.request(recipient.url)).body == b"all of it"

    def test_a_chunked_body_is_read(self, recipient: LocalRecipient) -> None:
        async def chunked(request: Any, writer: asyncio.StreamWriter) -> bool:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            await writer.drain()
            return True

        async def scenario(transport: Transport) -> list[bytes]:
            return [(await transport.send(self.request(recipient.url))).body for _ in range(2)]

        recipient.behave(chunked)
        assert self.use(scenario) == [b"onetwo", b"onetwo"]
        assert recipient.connections == 1

    def test_a_refused_connection_is_an_error(self) -> None:
        with LocalRecipient() as gone:
            url = gone.url
        with pytest.raises(TransportError, match=r"no connection to 127\.0\.0\.1:"):
            self.send(self.request(url))

    def test_a_name_that_is_unknown_is_an_error(self) -> None:
        async def unknown(host: str, port: int) -> Sequence[str]:
            raise TransportError(f"{host} is unknown")

        with pytest.raises(TransportError, match="is unknown"):
            self.send(self.request("http://nobody.example/"), resolver=unknown)

    def test_a_look_up_that_takes_too_long_is_a_timeout(self) -> None:
        async def slow(host: str, port: int) -> Sequence[str]:
            await asyncio.sleep(PATIENCE)
            return ["127.0.0.1"]

        request = self.request("http://slow.example/", connect_timeout=0.05)
        with pytest.raises(TransportTimeout):
            self.send(request, resolver=slow)

    def test_redirects_are_not_followed(self, recipient: LocalRecipient) -> None:
        recipient.answer(status=302, headers={"Location": "/elsewhere"})
        assert self.send(self.request(recipient.url)).status == 302
        assert len(recipient.received) == 1

    def test_proxies_of_the_environment_are_not_used(
        self, recipient: LocalRecipient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with LocalRecipient() as proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.lower(), proxy.url)
            assert self.send(self.request(recipient.url)).status == 200
            assert proxy.connections == 0

    def test_cookies_are_not_kept(self, recipient: LocalRecipient) -> None:
        recipient.answer(headers={"Set-Cookie": "a=1"})

        async def scenario(transport: Transport) -> None:
            for _ in range(2):
                await transport.send(self.request(recipient.url))

        self.use(scenario)
        assert "cookie" not in recipient.received[1].headers

    def test_bodies_are_not_decompressed(self, recipient: LocalRecipient) -> None:
        recipient.answer(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b not really")
        assert self.send(self.request(recipient.url)).body == b"\x1f\x8b not really"
