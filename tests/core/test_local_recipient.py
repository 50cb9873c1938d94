"""The local recipient, beside whatever loop the test runs on."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading

import httpx
import pytest

from thorn_core.testing import LocalRecipient
from thorn_core.testing.recipient import close_server


def loops():
    yield asyncio.SelectorEventLoop
    try:
        import uvloop
    except ImportError:
        return
    yield uvloop.new_event_loop


@pytest.fixture(params=list(loops()), ids=lambda make: make.__module__)
def run(request):
    def run(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return run


async def post(url):
    async with httpx.AsyncClient() as client:
        return (await client.post(url, json={"n": 1})).status_code


def test_it_works_inside_a_running_loop(run):
    async def main():
        with LocalRecipient() as recipient:
            assert await post(recipient.url) == 200
            assert recipient.received[0].json == {"n": 1}

    run(main())


def test_it_is_an_asynchronous_context_manager(run):
    async def main():
        async with LocalRecipient() as recipient:
            arriving = asyncio.create_task(recipient.await_for(1))
            assert await post(recipient.url) == 200
            assert len(await arriving) == 1
            with pytest.raises(TimeoutError):
                await recipient.await_for(2, timeout=0.001)
        with pytest.raises(httpx.ConnectError):
            await post(recipient.url)

    run(main())


def test_it_ends_while_requests_hang(run):
    async def main():
        async with LocalRecipient() as recipient:
            recipient.hang()
            hanging = asyncio.create_task(post(recipient.url))
            await recipient.await_for(1)
        with pytest.raises(httpx.TransportError):
            await hanging

    run(main())


def test_it_leaves_no_thread():
    before = threading.active_count()
    recipient = LocalRecipient()
    for _ in range(2):
        recipient.start()
        recipient.stop()
        recipient.stop()
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_said_and_leaves_no_thread():
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        recipient = LocalRecipient(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            recipient.start()
    assert threading.active_count() == before


@pytest.mark.parametrize("rounds", range(6))
def test_a_connection_that_arrives_as_the_server_closes_is_not_left_open(rounds):
    async def serve(reader, writer):
        writer.transport.abort()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            # The loop has got so far with accepting it.
            for _ in range(rounds):
                await asyncio.sleep(0)
            await close_server(server)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    # pytest reports a transport that nobody closed as soon as it is collected.
    gc.collect()
