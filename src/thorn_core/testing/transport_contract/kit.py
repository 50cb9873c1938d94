"""Shared helpers of the tests of the transport contract."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import attrs
import pytest

from thorn_core.ports.transport import Transport
from thorn_core.recipients import allow_cidr_network, block_internal_ips
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.transports.resolution import Resolver
from thorn_core.values import Request, Response

T = TypeVar("T")
ALLOWED = (allow_cidr_network("127.0.0.0/8"), block_internal_ips())
PATIENCE = 10.0


def resolving(answers: Sequence[Sequence[str]], asked: list[str]) -> Resolver:
    """Return a resolver that returns one result after the other, then the last one for ever."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve


class TransportKit:
    """Creates the transport under test and a recipient."""

    def make_transport(
        self, *, resolver: Resolver | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> Transport:
        """Create the transport; options that are None use its defaults."""
        return pytest.fail("a subclass makes its transport here")

    @pytest.fixture
    def recipient(self) -> Iterator[LocalRecipient]:
        """Yield a recipient."""
        with LocalRecipient() as recipient:
            yield recipient

    def use(self, scenario: Callable[[Transport], Awaitable[T]], **options: Any) -> T:
        """Run a scenario with a transport on its own event loop."""

        async def main() -> T:
            transport = self.make_transport(**options)
            try:
                async with asyncio.timeout(PATIENCE):
                    return await scenario(transport)
            finally:
                await transport.close()
                await transport.close()

        return asyncio.run(main())

    @staticmethod
    def request(url: str, **changes: Any) -> Request:
        """Return a request."""
        made = Request(url=url, headers={"X-A": "1"}, body=b'{"n":1}', validators=ALLOWED)
        return attrs.evolve(made, **changes)

    def send(self, request: Request, **options: Any) -> Response:
        """Send one request."""
        return self.use(lambda transport: transport.send(request), **options)

    @staticmethod
    def contexts(authority: Any, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Return TLS contexts of a server with that name and of a client that trusts it."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(server)
        client = ssl.create_default_context()
        authority.configure_trust(client)
        return server, client
