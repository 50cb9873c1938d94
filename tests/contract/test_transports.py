"""Both transports keep the contract; and what is particular to each."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from thorn_core import TransportError, TransportTimeout
from thorn_core.testing import LocalRecipient
from thorn_core.testing.raw_server import RawServer
from thorn_core.testing.transport_contract import ALLOWED, TransportContract
from thorn_core.transports import HttpxTransport, best_transport
from thorn_core.transports import descriptors as module
from thorn_core.transports.fast import FastTransport
from thorn_core.values import Request
from thorn_core.worker import new_event_loop


def given(options):
    return {name: value for name, value in options.items() if value is not None}


class TestHttpxTransport(TransportContract):
    def make_transport(self, **options):
        return HttpxTransport(**given(options))


class TestFastTransport(TransportContract):
    def make_transport(self, **options):
        return FastTransport(**given(options))


class TestFastTransportOnUvloop(TransportContract):
    def make_transport(self, **options):
        return FastTransport(**given(options))

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


TRANSPORTS = [HttpxTransport, FastTransport]


def request(url, **changes):
    return Request(**{"url": url, "headers": {}, "body": b"", "validators": ALLOWED, **changes})


def test_the_best_transport_is_the_fast_one_where_it_is_installed(monkeypatch):
    assert isinstance(best_transport(), FastTransport)
    monkeypatch.setitem(__import__("sys").modules, "thorn_core.transports.fast", None)
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


@pytest.mark.parametrize("transport_class", TRANSPORTS)
def test_a_recipient_that_speaks_first_is_no_http_server(transport_class):
    greeted = threading.Event()

    def behave(connection):
        connection.write(b"220 mail.example ESMTP\r\n")
        greeted.set()
        connection.wait_closed()

    async def main(url):
        transport = transport_class()
        try:
            with pytest.raises(TransportError, match=r"before the request|not HTTP"):
                await transport.send(request(url))
        finally:
            await transport.close()

    with RawServer(behave) as server:
        asyncio.run(main(server.url))
        assert greeted.wait(10)


def test_importing_the_core_loads_no_http_library():
    program = "import sys, thorn_core; print({'h11', 'httptools', 'httpx'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\n"


# -- descriptors


@pytest.fixture
def four_connections(monkeypatch):
    monkeypatch.setattr(module, "most_connections", lambda: 4)


def test_connections_may_take_a_quarter_of_the_descriptors(monkeypatch):
    resource = pytest.importorskip("resource")
    for soft, most in ((1024, 256), (3, 1), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert module.most_connections() == most


@pytest.mark.usefixtures("four_connections")
def test_connections_of_all_transports_together_are_bounded():
    free = threading.Event()

    def behave(connection):
        connection.request()
        free.wait(10)
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.wait_closed()

    async def main(server):
        transports = [transport_class() for transport_class in TRANSPORTS]
        sends = [
            asyncio.ensure_future(transport.send(request(server.url, owner=owner)))
            for transport, owner in zip(transports, "ab", strict=True)
            for _ in range(4)
        ]
        async with asyncio.timeout(10):
            while len(server.requests) < 4:
                await asyncio.sleep(0.001)
        assert server.connections == 4
        free.set()
        statuses = [response.status for response in await asyncio.gather(*sends)]
        for transport in transports:
            await transport.close()
        return statuses

    with RawServer(behave) as server:
        assert asyncio.run(main(server)) == [200] * 8


@pytest.mark.usefixtures("four_connections")
def test_idle_connections_give_way_to_those_of_another_transport():
    async def main(url):
        keeping, needing = (transport_class() for transport_class in TRANSPORTS)
        await asyncio.gather(*(keeping.send(request(url, owner=owner)) for owner in "aaab"))
        assert len(keeping._idle) == 4
        await needing.send(request(url, owner="c"))
        assert len(keeping._idle) == 3
        await keeping.close()
        await needing.close()

    with LocalRecipient() as recipient:
        recipient.answer(delay=0.02, times=4)
        asyncio.run(main(recipient.url))
        assert recipient.connections == 5


@pytest.mark.usefixtures("four_connections")
def test_idle_connections_give_way_to_those_of_the_same_owner():
    async def main(url, other):
        transport = FastTransport()
        await asyncio.gather(*(transport.send(request(url, owner="a")) for _ in range(3)))
        assert (await transport.send(request(other, owner="a"))).status == 200
        assert len(transport._idle) == 3
        await transport.close()

    with LocalRecipient() as recipient, LocalRecipient() as other:
        recipient.answer(delay=0.02, times=3)
        asyncio.run(main(recipient.url, other.url))
        assert recipient.connections == 3


@pytest.mark.usefixtures("four_connections")
def test_connections_of_one_owner_that_hang_leave_room_for_others():
    async def main(hanging, url):
        transport = FastTransport()
        sends = [
            asyncio.ensure_future(transport.send(request(hanging, owner="mallory")))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        for owner in ("victim", None):
            assert (await transport.send(request(url, owner=owner))).status == 200
        assert not any(send.done() for send in sends)
        for send in sends:
            send.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        await transport.close()
        assert module.descriptors()._taken == 0
        assert not module.descriptors().scarce

    with LocalRecipient() as recipient, LocalRecipient() as hanging:
        hanging.hang()
        asyncio.run(main(hanging.url, recipient.url))
        assert hanging.connections == 3


@pytest.mark.usefixtures("four_connections")
def test_what_failed_or_was_cancelled_gives_its_descriptor_back():
    async def main(gone, url, hanging):
        transport = FastTransport()
        for _ in range(5):
            with pytest.raises(TransportError, match="connection refused"):
                await transport.send(request(gone))
        sends = [
            asyncio.ensure_future(transport.send(request(hanging, owner=owner))) for owner in "aaab"
        ]
        await asyncio.sleep(0)
        with pytest.raises(TransportTimeout, match="too many connections"):
            await transport.send(request(url, owner="c", connect_timeout=0.05))
        for send in sends:
            send.cancel()
        assert (await transport.send(request(url))).status == 200
        await transport.close()
        assert module.descriptors()._taken == 0

    with LocalRecipient() as gone:
        closed = gone.url
    with LocalRecipient() as recipient, LocalRecipient() as hanging:
        hanging.hang()
        asyncio.run(main(closed, recipient.url, hanging.url))


def test_a_forked_child_counts_its_own_connections():
    run = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("256 0\n", 0), run.stderr


FORKED = """
import asyncio, os
from thorn_core.transports import descriptors as module

module.most_connections = lambda: 256

async def take():
    for number in range(256):
        await module.descriptors().take((str(number), None))

asyncio.run(take())
if os.fork() == 0:
    print(256 - module.descriptors()._taken, end=" ", flush=True)
    asyncio.run(take())
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
