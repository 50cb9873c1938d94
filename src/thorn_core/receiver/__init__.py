"""The receiver: verify webhooks of any signature scheme, and handle each once."""

from thorn_core.codecs import Decoder
from thorn_core.receiver.receiving import (
    Answer,
    Arrival,
    Receiver,
    refusal,
)
from thorn_core.receiver.replays import (
    Cache,
    CacheReplayGuard,
    MemoryReplayGuard,
    ReplayGuard,
    Seen,
)
from thorn_core.receiver.secrets import check_secrets, secrets_of
from thorn_core.receiver.verifying import BODY_LIMIT, verify

__all__ = [
    "BODY_LIMIT",
    "Answer",
    "Arrival",
    "Cache",
    "CacheReplayGuard",
    "Decoder",
    "MemoryReplayGuard",
    "Receiver",
    "ReplayGuard",
    "Seen",
    "check_secrets",
    "refusal",
    "secrets_of",
    "verify",
]
