"""Both transports keep the contract; and what is particular to each."""

from __future__ import annotations

import asyncio

import pytest

from thorn_core import TransportError
from thorn_core.testing import LocalRecipient
from thorn_core.testing.transport_contract import ALLOWED, TransportContract
from thorn_core.transports import HttpxTransport, best_transport
from thorn_core.transports.aiohttp import AiohttpTransport
from thorn_core.values import Request
from thorn_core.worker import new_event_loop


def given(options):
    return {name: value for name, value in options.items() if value is not None}


class TestHttpxTransport(TransportContract):
    def make_transport(self, **options):
        return HttpxTransport(**given(options))


class TestAiohttpTransport(TransportContract):
    def make_transport(self, **options):
        return AiohttpTransport(**given(options))


class TestAiohttpTransportOnUvloop(TransportContract):
    def make_transport(self, **options):
        return AiohttpTransport(**given(options))

    def use(self, scenario, **options):
        async def main():
            transport = self.make_transport(**options)
            try:
                async with asyncio.timeout(10):
                    return await scenario(transport)
            finally:
                await transport.close()

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(main())


TRANSPORTS = [HttpxTransport, AiohttpTransport]


def request(url, **changes):
    return Request(**{"url": url, "headers": {}, "body": b"", "validators": ALLOWED, **changes})


def test_the_best_transport_is_the_fast_one_where_it_is_installed(monkeypatch):
    assert isinstance(best_transport(), AiohttpTransport)
    monkeypatch.setitem(__import__("sys").modules, "thorn_core.transports.aiohttp", None)
    assert isinstance(best_transport(), HttpxTransport)


@pytest.mark.parametrize("transport_class", TRANSPORTS)
def test_idle_connections_are_closed_after_a_while(transport_class):
    async def main(url):
        transport = transport_class(idle_timeout=0.01)
        await transport.send(request(url))
        async with asyncio.timeout(5):
            while transport._idle:
                await asyncio.sleep(0.01)
        await transport.send(request(url))
        await transport.close()

    with LocalRecipient() as recipient:
        asyncio.run(main(recipient.url))
        assert recipient.connections == 2


@pytest.mark.parametrize("transport_class", TRANSPORTS)
def test_idle_connections_are_bounded(transport_class):
    async def main(url):
        transport = transport_class(max_connections=2, idle_timeout=0.05)
        await asyncio.gather(*(transport.send(request(url)) for _ in range(6)))
        async with asyncio.timeout(5):
            while len(transport._idle) > 2:
                await asyncio.sleep(0.01)
        await transport.close()

    with LocalRecipient() as recipient:
        recipient.answer(delay=0.05)
        asyncio.run(main(recipient.url))
        assert recipient.connections == 6


@pytest.mark.parametrize("transport_class", TRANSPORTS)
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb"])
def test_a_header_with_a_line_break_is_never_sent(transport_class, value):
    async def main(url):
        transport = transport_class()
        try:
            with pytest.raises(TransportError):
                await transport.send(request(url, headers={"X-A": value}))
        finally:
            await transport.close()

    with LocalRecipient() as recipient:
        asyncio.run(main(recipient.url))
        assert recipient.received == ()


def test_an_answer_that_nobody_asked_for_closes_the_connection():
    async def twice(received, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2)
        await writer.drain()
        return True

    async def main(url):
        transport = AiohttpTransport()
        statuses = [(await transport.send(request(url))).status for _ in range(2)]
        await transport.close()
        return statuses

    with LocalRecipient() as recipient:
        recipient.behave(twice, times=1)
        assert asyncio.run(main(recipient.url)) == [200, 200]
        assert recipient.connections == 2
