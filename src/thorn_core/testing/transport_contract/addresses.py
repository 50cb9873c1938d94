"""The contract of transports: names, addresses and TLS."""

from __future__ import annotations

import attrs
import pytest

from thorn_core.errors import SecurityError, TransportError
from thorn_core.ports.transport import Transport
from thorn_core.recipients import block_internal_ips
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.testing.transport_contract.kit import ALLOWED, TransportKit, resolving
from thorn_core.values import Response


class Addresses(TransportKit):
    """A transport connects to a checked address with the original name."""

    def test_a_refused_address_is_never_connected_to(self, recipient: LocalRecipient) -> None:
        with pytest.raises(SecurityError):
            self.send(self.request(recipient.url, validators=(block_internal_ips(),)))
        assert recipient.connections == 0

    def test_one_bad_address_refuses_the_name(self, recipient: LocalRecipient) -> None:
        port = recipient.url.split(":")[2]
        resolver = resolving([["127.0.0.1", "10.0.0.1"]], [])
        with pytest.raises(SecurityError):
            self.send(self.request(f"http://good.example:{port}"), resolver=resolver)
        assert recipient.connections == 0

    def test_the_connection_goes_to_the_address_that_was_checked(
        self, recipient: LocalRecipient
    ) -> None:
        asked: list[str] = []
        port = recipient.url.split(":")[2]
        resolver = resolving([["127.0.0.1"], ["10.0.0.1"]], asked)
        request = self.request(f"http://rebinding.example:{port}path")
        request = attrs.evolve(request, url=f"http://rebinding.example:{port}")

        async def scenario(transport: Transport) -> Response:
            first = await transport.send(request)
            await transport.send(request)
            with pytest.raises(SecurityError):
                await transport.send(attrs.evolve(request, validators=(*ALLOWED,)[:1] + ALLOWED))
            return first

        assert self.use(scenario, resolver=resolver).status == 200
        assert asked == ["rebinding.example"] * 2
        assert recipient.received[0].headers["host"] == f"rebinding.example:{port[:-1]}"

    def test_the_next_address_is_tried(self, recipient: LocalRecipient) -> None:
        port = recipient.url.split(":")[2]
        resolver = resolving([["127.0.0.2", "127.0.0.1"]], [])
        request = self.request(f"http://two.example:{port}")
        assert self.send(request, resolver=resolver).status == 200

    def test_stricter_validators_do_not_use_a_connection_of_looser_ones(
        self, recipient: LocalRecipient
    ) -> None:
        async def scenario(transport: Transport) -> None:
            await transport.send(self.request(recipient.url))
            with pytest.raises(SecurityError):
                await transport.send(
                    self.request(recipient.url, validators=(block_internal_ips(),))
                )

        self.use(scenario)
        assert recipient.connections == 1

    def test_tls_goes_by_the_original_name(self) -> None:
        authority = pytest.importorskip("trustme").CA()
        server, client = self.contexts(authority, "good.example")
        names: list[str | None] = []
        server.sni_callback = lambda connection, name, context: names.append(name)
        with LocalRecipient(ssl_context=server) as recipient:
            port = recipient.url.split(":")[2]
            resolver = resolving([["127.0.0.1"]], [])

            async def scenario(transport: Transport) -> list[int]:
                request = self.request(f"https://good.example:{port}")
                return [(await transport.send(request)).status for _ in range(2)]

            assert self.use(scenario, resolver=resolver, ssl_context=client) == [200, 200]
            assert names == ["good.example"]
            assert recipient.received[0].headers["host"] == f"good.example:{port[:-1]}"

    def test_a_certificate_for_another_name_is_refused(self) -> None:
        authority = pytest.importorskip("trustme").CA()
        server, client = self.contexts(authority, "good.example")
        with LocalRecipient(ssl_context=server) as recipient:
            port = recipient.url.split(":")[2]
            resolver = resolving([["127.0.0.1"]], [])

            async def scenario(transport: Transport) -> None:
                good = self.request(f"https://good.example:{port}")
                await transport.send(good)
                # The names share an address, but must not share a connection.
                with pytest.raises(TransportError, match=r"(?i)certificate|hostname"):
                    await transport.send(attrs.evolve(good, url=f"https://evil.example:{port}"))

            self.use(scenario, resolver=resolver, ssl_context=client)
            assert len(recipient.received) == 1

    def test_an_unknown_authority_is_refused(self) -> None:
        authority = pytest.importorskip("trustme").CA()
        server, _ = self.contexts(authority, "good.example")
        with LocalRecipient(ssl_context=server) as recipient:
            port = recipient.url.split(":")[2]
            with pytest.raises(TransportError, match=r"(?i)certificate"):
                self.send(
                    self.request(f"https://good.example:{port}"),
                    resolver=resolving([["127.0.0.1"]], []),
                )
            assert recipient.received == ()
