"""Every extension point of Thorn: pluggy hook specifications of the project `thorn`.

A plugin is any object or module with functions of these names, marked with `hookimpl`. It is found
by an entry point of the group `thorn`, or handed over as `Thorn(plugins=[...])`. Thorn's own
dispatchers, stores, codecs, schemes and transports come in through the same hooks.

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
from typing import TYPE_CHECKING, Any

import pluggy

from thorn_core.codecs import Codec, Decoder
from thorn_core.settings import Settings
from thorn_core.signatures import SignatureScheme
from thorn_core.stores.base import Store
from thorn_core.transports.base import Transport
from thorn_core.unit_of_work import UnitOfWork
from thorn_core.values import Attempt, Delivery, Message, Request, Subscription

if TYPE_CHECKING:
    from thorn_core.app import Thorn
    from thorn_core.dispatchers.base import Dispatcher
    from thorn_core.models import ModelAdapter

PROJECT = "thorn"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def thorn_dispatchers() -> Mapping[str, Callable[[Thorn], Dispatcher]]:  # type: ignore[empty-body]
    """More dispatchers, by name.

    Returns:
        Name to factory; the factory gets the app and returns a `Dispatcher`.
    """


@hookspec
def thorn_stores() -> Mapping[str, Callable[[Any, Settings], Store]]:  # type: ignore[empty-body]
    """More stores, by the scheme of the URL given as `Thorn(store=...)`.

    Returns:
        Scheme (`postgresql+psycopg`, or `postgresql` for all its drivers) to factory; the factory
        gets what was given, the URL or an object whose `url` it is, and the settings, and returns
        a `Store`.
    """


@hookspec(firstresult=True)
def thorn_transport(settings: Settings) -> Transport | None:
    """The transport, called once per event loop; the first that isn't None is used.

    Args:
        settings: The app's.
    """


@hookspec
def thorn_codecs() -> Mapping[str, Codec]:  # type: ignore[empty-body]
    """More codecs, by content type.

    Returns:
        Content type (`application/xml`) to a function from an `Envelope` to bytes.
    """


@hookspec
def thorn_decoders() -> Mapping[str, Decoder]:  # type: ignore[empty-body]
    """More decoders, by content type: the other direction of `thorn_codecs`, for the receiver.

    Returns:
        Content type to a function from bytes to what they say, such as the fields of an envelope.
        It raises ValueError for a body that isn't of this type: no signature covers the header that
        chose the decoder.
    """


@hookspec
def thorn_signature_schemes() -> Mapping[str, SignatureScheme]:  # type: ignore[empty-body]
    """More signature schemes, by the name that the setting `signatures` uses."""


@hookspec
def thorn_subscriptions(message: Message) -> Sequence[Subscription]:  # type: ignore[empty-body]
    """More recipients of a message, beside the static and the stored ones.

    Called in the engine when the message is routed, again if a worker died meanwhile: the same
    recipient must have the same id each time.
    """


@hookspec
def thorn_accepts(message: Message, subscription: Subscription) -> bool | None:
    """Leave a recipient out by returning False; True and None let it be."""


@hookspec
def thorn_validate_recipient(url: str) -> bool | None:
    """Refuse a recipient by raising `SecurityError`; called at subscribing and before requests.

    Returning False refuses it too, without a reason; True and None let it be. Who subscribed it may
    read the error's text: don't name addresses of your network.
    """


@hookspec
def thorn_prepare_request(request: Request, delivery: Delivery) -> Request | None:
    """Change a request before it is signed: transform the body, add headers.

    Each plugin gets what the one before it returned; None leaves it as it is.
    """


@hookspec
def thorn_attempted(attempt: Attempt, delivery: Delivery) -> None:
    """Observe an attempt; called in the engine for every one, so be quick."""


@hookspec
def thorn_import_events() -> None:
    """Import the modules that declare events: called once, before the first worker of an app.

    Beside those of the setting `imports`; as an adapter knows its framework's places for them.
    """


@hookspec(firstresult=True)
def thorn_model_adapter(model: type) -> ModelAdapter | None:
    """The ORM adapter for a class decorated with `webhook_model`, None if it isn't yours."""


@hookspec(firstresult=True)
def thorn_unit_of_work(handle: Any) -> UnitOfWork | None:
    """The unit of work for a transaction handle (`within=`), None if it isn't yours."""


@hookspec(firstresult=True)
def thorn_calling() -> AbstractContextManager[object] | None:
    """What is entered around the program's own code where Thorn calls it, None for nothing.

    That is callbacks, callable subscribers, receivers of signals, and the hooks that say which
    recipients there are, whether they may be called and how: mostly in the engine's thread.
    """


@hookspec(firstresult=True)
def thorn_reverse(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The URL of a web framework's view, None if you don't know it."""


@hookspec(firstresult=True)
def thorn_base_url() -> str | None:
    """What the paths of a web framework are relative to, `https://example.com`, None if unknown.

    Asked where the setting `base_url` isn't set.
    """


@hookspec
def thorn_cli(group: Any) -> None:
    """Add commands to the `thorn` command; `thorn_core.cli.find_app` finds the user's app.

    Args:
        group: A `click.Group`.
    """
