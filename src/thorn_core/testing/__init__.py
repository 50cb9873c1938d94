"""Helpers for users' tests: captured messages, a local recipient, and the ports' contracts.

`StoreContract`, `ExecutorContract` and `TransportContract` need pytest, and are imported from their
modules: `thorn_core.testing.store_contract`, `.executor_contract` and `.transport_contract`.
"""

from thorn_core.testing.capture import CapturedMessages, capture
from thorn_core.testing.recipient import LocalRecipient, Received

__all__ = ["CapturedMessages", "LocalRecipient", "Received", "capture"]
