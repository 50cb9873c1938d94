"""Every extension point of Thorn: pluggy hook specifications of the project `thorn`.

A plugin is any object or module with functions of these names, marked with `hookimpl`. It is found
by an entry point of the group `thorn`, or passed as `Thorn(plugins=[...])`. Thorn registers its own
dispatchers, stores, codecs, schemes and transports through the same hooks.

Example:
    >>> from thorn_core import Thorn, hookimpl
    >>> class OnlyPaidOwners:
    ...     @hookimpl
    ...     def thorn_accepts(self, message, subscription):
    ...         return None if subscription.owner in {"42", None} else False
    >>> app = Thorn(plugins=[OnlyPaidOwners()])
    >>> app.close()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pluggy

from thorn_core.codecs import Codec, Decoder
from thorn_core.ports.app import App
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.model_adapter import ModelAdapter
from thorn_core.ports.store import Store
from thorn_core.ports.transport import Transport
from thorn_core.ports.unit_of_work import UnitOfWork
from thorn_core.settings import Settings
from thorn_core.signatures import SignatureScheme
from thorn_core.values import Attempt, Delivery, Message, Request, Subscription

PROJECT = "thorn"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def thorn_dispatchers() -> Mapping[str, Callable[[App], Dispatcher]]:  # type: ignore[empty-body]
    """Add dispatchers, by name.

    Returns:
        Name to factory; the factory gets the app and returns a `Dispatcher`.
    """


@hookspec
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], Store]]:  # type: ignore[empty-body]
    """Add stores, by the scheme of the URL in `Thorn(store=...)`.

    Returns:
        Scheme (`postgresql+psycopg`, or `postgresql` for all its drivers) to factory. The factory
        gets the URL, or the given object with the attribute `url`, and the settings. It returns a
        `Store`.
    """


@hookspec(firstresult=True)
def thorn_transport(settings: Settings) -> Transport | None:
    """Create the transport, once per event loop; the first result that isn't None is used.

    Args:
        settings: The app's settings.
    """


@hookspec
def thorn_codecs() -> Mapping[str, Codec]:  # type: ignore[empty-body]
    """Add codecs, by content type.

    Returns:
        Content type (`application/xml`) to a function from an `Envelope` to bytes.
    """


@hookspec
def thorn_decoders() -> Mapping[str, Decoder]:  # type: ignore[empty-body]
    """Add decoders, by content type: the reverse of `thorn_codecs`, for the receiver.

    Returns:
        Content type to a function from bytes to their content, such as the fields of an envelope.
        It raises ValueError for a body of another type, because no signature covers the header that
        selects the decoder.
    """


@hookspec
def thorn_signature_schemes() -> Mapping[str, SignatureScheme]:  # type: ignore[empty-body]
    """Add signature schemes, by their names in the setting `signatures`."""


@hookspec
def thorn_subscriptions(message: Message) -> Sequence[Subscription]:  # type: ignore[empty-body]
    """Add recipients of a message, in addition to static and stored ones.

    Called in the engine when the message is routed, and again if the worker dies: a recipient must
    have the same id each time.
    """


@hookspec
def thorn_accepts(message: Message, subscription: Subscription) -> bool | None:
    """Return False to exclude a recipient; True and None have no effect."""


@hookspec
def thorn_validate_recipient(url: str) -> bool | None:
    """Raise `SecurityError` to refuse a recipient; called at subscription and before requests.

    Returning False refuses it too, without a reason; True and None have no effect. The subscriber
    may read the error's text, so don't include addresses of your network.
    """


@hookspec
def thorn_prepare_request(request: Request, delivery: Delivery) -> Request | None:
    """Change a request before it is signed: transform the body, add headers.

    Each plugin gets the result of the previous one; None leaves the request unchanged.
    """


@hookspec
def thorn_attempted(attempt: Attempt, delivery: Delivery) -> None:
    """Observe an attempt; called in the engine for each attempt, so it must be fast."""


@hookspec
def thorn_import_events() -> None:
    """Import the modules that declare events: called once, before the first worker of an app.

    Adds to the setting `imports`; adapters know their frameworks' conventions.
    """


@hookspec(firstresult=True)
def thorn_model_adapter(model: type) -> ModelAdapter | None:
    """Return the ORM adapter for a class decorated with `webhook_model`; None if it isn't yours."""


@hookspec(firstresult=True)
def thorn_unit_of_work(handle: Any) -> UnitOfWork | None:
    """Return the unit of work for a transaction handle (`within=`); None if it isn't yours."""


@hookspec(firstresult=True)
def thorn_calling() -> AbstractContextManager[object] | None:
    """Return a context manager to enter around calls of the program's own code, or None.

    These are callbacks, callable subscribers, signal receivers, and the hooks for recipients and
    requests. Most of them run in the engine's thread.
    """


@hookspec(firstresult=True)
def thorn_reverse(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the URL of a web framework's view; None if it is unknown."""


@hookspec(firstresult=True)
def thorn_base_url() -> str | None:
    """Return the base URL of the web framework's paths, `https://example.com`; None if unknown.

    Called if the setting `base_url` isn't set.
    """


@hookspec
def thorn_cli(group: Any) -> None:
    """Add commands to the `thorn` command; `thorn_core.cli.find_app` finds the user's app.

    Args:
        group: A `click.Group`.
    """
