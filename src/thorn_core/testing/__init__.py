"""Helpers for users' tests: captured messages, a local recipient, and the ports' contracts.

`StoreContract` and `TransportContract` need pytest, and are imported from their modules:
`thorn_core.testing.store_contract`, `thorn_core.testing.transport_contract`.
"""

from thorn_core.testing.capture import CapturedMessages, capture
from thorn_core.testing.recipient import LocalRecipient, Received

__all__ = ["CapturedMessages", "LocalRecipient", "Received", "capture"]
