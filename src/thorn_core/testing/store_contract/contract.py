"""The contract of stores, whole."""

from __future__ import annotations

from thorn_core.testing.store_contract.claims import ClaimContract
from thorn_core.testing.store_contract.clearing import ClearingContract
from thorn_core.testing.store_contract.figures import FigureContract
from thorn_core.testing.store_contract.history import HistoryContract
from thorn_core.testing.store_contract.messages import MessageContract
from thorn_core.testing.store_contract.pauses import PauseContract
from thorn_core.testing.store_contract.recording import RecordingContract
from thorn_core.testing.store_contract.subscriptions import SubscriptionContract


class StoreContract(
    SubscriptionContract,
    MessageContract,
    ClaimContract,
    RecordingContract,
    HistoryContract,
    ClearingContract,
    PauseContract,
    FigureContract,
):
    """What every store must do.

    Subclass it in a test module, with a `make_store` of yours; a store that others may share says
    in `reopen` how to get another handle on the same data::

        class TestMyStore(StoreContract):
            def make_store(self): return MyStore("my://")
    """
