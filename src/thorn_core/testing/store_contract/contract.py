"""The complete contract of stores."""

from __future__ import annotations

from thorn_core.testing.store_contract.claims import ClaimContract
from thorn_core.testing.store_contract.clearing import ClearingContract
from thorn_core.testing.store_contract.direct import DirectContract
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
    DirectContract,
    HistoryContract,
    ClearingContract,
    PauseContract,
    FigureContract,
):
    """The requirements of every store.

    Subclass it in a test module and override `make_store`. For a shared store, also override
    `reopen` to return another handle on the same data::

        class TestMyStore(StoreContract):
            def make_store(self): return MyStore("my://")
    """
