"""Figures and the payload, for all benchmarks."""

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
    """A ratio of two measurements in the same run.

    Attributes:
        name: Name of the subject.
        subject: Measurement of the subject, in `unit`.
        peer: Measurement of the peer.
        against: Name of the peer.
        unit: Unit of both measurements.
        ratio: Subject to peer.
        target: Target of the ratio, a minimum (`>=0.6`) or a maximum (`<2`).
        note: An additional observation.
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
        """Return whether the ratio meets its target."""
        number = float(self.target.lstrip("<>="))
        if self.target.startswith(">"):
            return self.ratio >= number
        return self.ratio <= number if "=" in self.target else self.ratio < number


def alternate(
    peer: Callable[[], float], subject: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Run both in turn; return both medians, and the median of the rounds' subject/peer ratios."""
    pairs = [(peer(), subject()) for _ in range(rounds)]
    return (
        statistics.median(p for p, _ in pairs),
        statistics.median(s for _, s in pairs),
        statistics.median(s / p for p, s in pairs),
    )


def local_settings(**changes: object) -> Settings:
    """Return settings that allow recipients on this machine."""
    return Settings(
        **{
            "concurrency": CONCURRENCY,
            "recipient_concurrency": CONCURRENCY,
            "allowed_networks": ["127.0.0.0/8"],
            "allowed_ports": range(1024, 65536),
            **changes,
        }
    )
