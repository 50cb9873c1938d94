"""What the benchmarks share: how a figure is told, and the payload."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import attrs

from thorn_core import Settings

# 500 bytes of JSON.
PAYLOAD = {"id": 7, "title": "x" * 440, "tags": ["a", "b", "c"], "price": "12.50"}
CONCURRENCY = 50


@attrs.frozen(kw_only=True)
class Figure:
    """A ratio against a peer in the same run.

    Attributes:
        name: What was measured.
        subject: How much, in `unit`.
        peer: How much the peer did.
        against: Who that was.
        unit: Of both.
        ratio: Subject to peer.
        target: What the ratio should be: at least (`>=0.6`) or at most (`<2`).
        note: Something else that was seen.
    """

    name: str
    subject: float
    peer: float
    against: str
    unit: str
    ratio: float
    target: str
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is."""
        number = float(self.target.lstrip("<>="))
        if self.target.startswith(">"):
            return self.ratio >= number
        return self.ratio <= number if "=" in self.target else self.ratio < number


def alternate(
    peer: Callable[[], float], subject: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Run both in turn; the medians, and the median of the ratios subject/peer of each round."""
    pairs = [(peer(), subject()) for _ in range(rounds)]
    return (
        statistics.median(p for p, _ in pairs),
        statistics.median(s for _, s in pairs),
        statistics.median(s / p for p, s in pairs),
    )


def local_settings(**changes: object) -> Settings:
    """Settings that allow recipients on this machine."""
    return Settings(
        **{
            "concurrency": CONCURRENCY,
            "recipient_concurrency": CONCURRENCY,
            "allowed_networks": ["127.0.0.0/8"],
            "allowed_ports": range(1024, 65536),
            **changes,
        }
    )
