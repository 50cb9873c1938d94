"""The fast transport under its former name, for programs that import it by that."""

from __future__ import annotations

from thorn_core.transports.fast import FastTransport as AiohttpTransport

__all__ = ["AiohttpTransport"]
