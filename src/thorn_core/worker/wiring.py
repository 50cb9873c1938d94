"""The services and settings that a worker gets from its app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any

import attrs

from thorn_core.codecs import Codec
from thorn_core.message_recipients import Unstored
from thorn_core.plugins import Plugins
from thorn_core.ports.store import Store
from thorn_core.ports.transport import Transport
from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.signatures import SignatureScheme
from thorn_core.values import Attempt, Delivery, Message


@attrs.frozen(kw_only=True)
class EventOptions:
    """The options of requests in an event's declaration.

    Attributes:
        validators: The event's own recipient validators; None applies the app's.
        keepalive: False closes connections after each response.
    """

    validators: tuple[Any, ...] | None = None
    keepalive: bool = True


@attrs.frozen(kw_only=True)
class Wiring:
    """The services and settings that a worker gets from its app.

    Attributes:
        app: The sender of signals.
        store: The app's store.
        plugins: The app's plugins.
        settings: The app's settings.
        codecs: The codecs by content type.
        schemes: The signature schemes in use.
        policy: The retry policy for messages without their own.
        clock: Returns the time, aware UTC.
        make_transport: Called on the worker's loop.
        options: Returns the event's options for a message.
        unstored: Returns the recipients of a message that aren't in the store.
        knows: Returns whether the declaration of a message's event is known, if needed.
        attempted: Called after every attempt.
        progressed: Called after every completion.
        calls: Calls of the store running in threads.
    """

    app: Any
    store: Store
    plugins: Plugins
    settings: Settings
    codecs: Mapping[str, Codec]
    schemes: tuple[SignatureScheme, ...]
    policy: RetryPolicy
    clock: Callable[[], datetime]
    make_transport: Callable[[], Transport]
    options: Callable[[Message], EventOptions]
    unstored: Callable[[Message], Unstored]
    knows: Callable[[Message], bool]
    attempted: Callable[[Attempt, Delivery], None]
    progressed: Callable[[], None]
    calls: set[Future[Any]] = attrs.field(factory=set, repr=False)
