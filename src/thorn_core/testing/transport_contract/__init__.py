"""The contract of transports, as tests: subclass it to test your own transport."""

from __future__ import annotations

from thorn_core.testing.transport_contract.addresses import Addresses
from thorn_core.testing.transport_contract.exchanges import Exchanges
from thorn_core.testing.transport_contract.hostility import Hostility
from thorn_core.testing.transport_contract.kit import ALLOWED, resolving


class TransportContract(Exchanges, Addresses, Hostility):
    """The requirements of every transport.

    Subclass it in a test module and override `make_transport`::

        class TestMyTransport(TransportContract):
            def make_transport(self, **options): return MyTransport(**options)
    """


__all__ = ["ALLOWED", "TransportContract", "resolving"]
