"""Dispatchers decide who runs the engine after a send, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thorn_core.dispatchers.background import BackgroundDispatcher
from thorn_core.dispatchers.disabled import DisabledDispatcher
from thorn_core.dispatchers.inline import InlineDispatcher
from thorn_core.dispatchers.outbox import OutboxDispatcher
from thorn_core.hookspecs import hookimpl
from thorn_core.ports.app import App
from thorn_core.ports.dispatcher import Dispatcher


class BuiltinDispatchers:
    """Thorn's own dispatchers, as a plugin."""

    @hookimpl
    def thorn_dispatchers(self) -> Mapping[str, Callable[[App], Dispatcher]]:
        """Return inline (in Thorn 1.x: default), background, outbox and disabled."""
        return {
            "inline": InlineDispatcher,
            "default": InlineDispatcher,
            "background": BackgroundDispatcher,
            "outbox": OutboxDispatcher,
            "disabled": DisabledDispatcher,
        }


__all__ = [
    "BackgroundDispatcher",
    "BuiltinDispatchers",
    "DisabledDispatcher",
    "Dispatcher",
    "InlineDispatcher",
    "OutboxDispatcher",
]
