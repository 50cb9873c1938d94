"""The contract of stores, as tests: subclass it to test your own store."""

from thorn_core.testing.store_contract.contract import StoreContract
from thorn_core.testing.store_contract.steps import (
    LEASE,
    NOW,
    later,
    make_message,
    make_subscription,
)

__all__ = ["LEASE", "NOW", "StoreContract", "later", "make_message", "make_subscription"]
