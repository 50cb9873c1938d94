"""Transports: who performs the HTTP requests."""

from __future__ import annotations

from typing import Any

from thorn_core.transports.base import Transport
from thorn_core.transports.httpx import HttpxTransport


def best_transport(**options: Any) -> Transport:
    """The fast transport where httptools is installed (extra `fast`), else the httpx one.

    Args:
        **options: Of either's constructor.
    """
    try:
        from thorn_core.transports.fast import FastTransport
    except ImportError:
        return HttpxTransport(**options)
    return FastTransport(**options)


__all__ = ["HttpxTransport", "Transport", "best_transport"]
