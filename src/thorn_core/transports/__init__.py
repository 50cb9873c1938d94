"""Transports: who performs the HTTP requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thorn_core.ports.transport import Transport

if TYPE_CHECKING:
    from thorn_core.transports.httpx import HttpxTransport


def best_transport(**options: Any) -> Transport:
    """The fast transport where httptools is installed (extra `fast`), else the httpx one.

    Args:
        **options: Of either's constructor.
    """
    try:
        from thorn_core.transports.fast import FastTransport
    except ImportError:
        from thorn_core.transports.httpx import HttpxTransport

        return HttpxTransport(**options)
    return FastTransport(**options)


def __getattr__(name: str) -> Any:
    # `import thorn_core` comes by here, and loads no HTTP library.
    if name == "HttpxTransport":
        from thorn_core.transports.httpx import HttpxTransport

        return HttpxTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["HttpxTransport", "Transport", "best_transport"]
