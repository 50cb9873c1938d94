"""Events: declared and sent by a program."""

from __future__ import annotations

import copy
import json
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from thorn_core import thorn_1
from thorn_core.answers import near
from thorn_core.codecs import dump_json
from thorn_core.current_app import app_here, get_app
from thorn_core.delivery import check_headers, merge_headers
from thorn_core.errors import ConfigurationError, PayloadError
from thorn_core.keys import idempotency_digest, new_id
from thorn_core.patterns import check_name, has_fields
from thorn_core.payload_schemas import schema_check
from thorn_core.ports.app import App
from thorn_core.receipts import Receipt
from thorn_core.retries import RetryPolicy
from thorn_core.send_options import SendArguments, SendOptions, check_timeout
from thorn_core.settings import ENVELOPES, check_validators, choose_policy
from thorn_core.subscribers import check_subscribers
from thorn_core.subscriptions import identify_sender
from thorn_core.values import EMPTY, Message
from thorn_core.worker import EventOptions

logger = logging.getLogger(__name__)


class Event:
    """A named kind of event; declare it once, at import time, then send it.

    Args:
        name: Words joined by dots, `article.published`.
        timeout: Seconds for a complete request, instead of the setting.
        retry: False makes only one attempt.
        retry_max: Number of retries; set it together with `retry_delay`.
        retry_delay: Seconds between them.
        retry_policy: Delays between attempts, instead of the setting.
        dispatcher: Name of the dispatcher, instead of the app's dispatcher.
        recipient_validators: Validators, instead of the setting.
        subscribers: Static subscribers of this event: a URL, list, mapping, or callable that gets
            the message.
        request_data: Merged into every payload, which must then be a mapping; the payload wins.
        allow_keepalive: False closes connections after each response.
        headers: Extra headers for every request.
        envelope: `thorn`, `standard`, `cloudevents` or `bare`, instead of the setting.
        schema: JSON Schema that payloads must follow (extra `schema`).
        description: A description for the documentation.
        example: An example payload for the documentation.
        app: The app; None uses `get_app()` at the time of sending.

    Raises:
        InvalidNameError: The name is invalid.
        ConfigurationError: An option isn't allowed, or `app` doesn't know the dispatcher. Without
            `app`, a dispatcher that the default app doesn't know is logged.

    Example:
        >>> from thorn_core import Event, Thorn
        >>> app = Thorn()
        >>> paid = Event("invoice.paid", app=app)
        >>> paid.send({"number": 7}).message.payload
        {'number': 7}
        >>> app.close()
    """

    # Whether it stays declared without other references.
    _stays = True

    def __init__(
        self,
        name: str,
        *,
        timeout: float | None = None,
        retry: bool | None = None,
        retry_max: int | None = None,
        retry_delay: float | None = None,
        retry_policy: RetryPolicy | None = None,
        dispatcher: str | None = None,
        recipient_validators: Sequence[Any] | None = None,
        subscribers: Any = None,
        request_data: Mapping[str, Any] | None = None,
        allow_keepalive: bool = True,
        headers: Mapping[str, str] | None = None,
        envelope: str | None = None,
        schema: Mapping[str, Any] | None = None,
        description: str = "",
        example: Any = None,
        app: App | None = None,
    ) -> None:
        self.name = self._checked_name(name)
        self.timeout = check_timeout(timeout)
        self.retry_policy = _checked_policy(retry, retry_max, retry_delay, retry_policy)
        if dispatcher is not None and (not isinstance(dispatcher, str) or not dispatcher):
            raise ConfigurationError(
                f"event {name!r} has the dispatcher {dispatcher!r}; use its name"
            )
        self.dispatcher = dispatcher
        self.recipient_validators = (
            None
            if recipient_validators is None
            else check_validators("recipient_validators", recipient_validators)
        )
        self.static_subscribers = (
            None if subscribers is None else check_subscribers(f"event {name!r}", subscribers)
        )
        self.request_data = dict(_check_mapping(name, "request_data", request_data) or {})
        self.allow_keepalive = check_switch(name, "allow_keepalive", allow_keepalive)
        self.headers: Mapping[str, str] = EMPTY if headers is None else check_headers(headers)
        if envelope is not None and envelope not in ENVELOPES:
            raise ConfigurationError(
                f"event {name!r} has the envelope {envelope!r}; {near(envelope, ENVELOPES)}"
            )
        self.envelope = envelope
        self.schema = _check_mapping(name, "schema", schema)
        if not isinstance(description, str):
            raise ConfigurationError(
                f"event {name!r} has the description {description!r}; use a string"
            )
        self.description = description
        self.example = example
        self.options = EventOptions(validators=self.recipient_validators, keepalive=allow_keepalive)
        self._app = app
        self._invalid = schema_check(schema)
        self._check_dispatcher()
        self._declare()

    def _declare(self) -> None:
        _declare(self)

    def _check_dispatcher(self) -> None:
        """Check that the event's app knows the dispatcher; for the default app, only log it."""
        app = self._app or app_here()
        unknown = None if app is None else unknown_dispatcher(self, app)
        if unknown is None:
            return
        if self._app is not None:
            raise ConfigurationError(unknown)
        # Another app, with other plugins, may send the event.
        logger.warning("%s", unknown)

    @property
    def _needed(self) -> bool:
        """Whether workers need the declaration, because messages don't contain all of it."""
        return self.static_subscribers is not None or self.options != EventOptions()

    # Names that subclasses can no longer override, with their replacements.
    _replaced: ClassVar[Mapping[str, str]] = thorn_1.EVENT

    def __init_subclass__(cls) -> None:
        if "_replaced" not in vars(cls):
            thorn_1.refuse_overrides(cls, cls._replaced)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @staticmethod
    def _checked_name(name: str) -> str:
        if has_fields(name):
            raise ConfigurationError(
                f"event name {name!r} contains fields, which only a ModelEvent can fill"
            )
        return check_name(name)

    @property
    def app(self) -> App:
        """The app that sends it: its own, or the result of `get_app()`.

        Raises:
            ConfigurationError: There is none.
        """
        return self._app if self._app is not None else get_app()

    @property
    def subscribers(self) -> tuple[Any, ...]:
        """The subscriptions that currently match a message of this event without a sender."""
        return tuple(self.app.subscribers(self.name))

    def send(self, data: Any = None, **options: Unpack[SendArguments]) -> Receipt:
        """Send a message of this event.

        Args:
            data: The payload: JSON values, and datetimes, Decimals, UUIDs …
            **options: `sender`: the user or tenant that it is about, or its id; subscriptions of
                other owners don't get it. `headers`: extra headers for its requests. `context`:
                values that travel with it but not to recipients. `timeout`: seconds for a whole
                request. `idempotency_key`: the same key of the same sender and event sends once.
                `within`: the transaction handle of an adapter; its commit sends the message.
                `on_success`, `on_error`, `on_timeout`: called with the attempt after a 2xx
                response, a failure or a timeout, if this process makes the attempt.

        Returns:
            The message, and the state of its deliveries.

        Raises:
            PayloadError: The payload can't be encoded, is too large, or violates the schema.
            ConfigurationError: There is no app, or an option is unknown or not allowed.
            StoreError: The store can't store it.

        Example:
            >>> from thorn_core import Thorn
            >>> with Thorn(dispatcher="outbox") as app:
            ...     paid = Event("invoice.paid", app=app)
            ...     first = paid.send({"number": 7}, sender="42", idempotency_key="invoice-7")
            ...     again = paid.send({"number": 7}, sender="42", idempotency_key="invoice-7")
            ...     first.duplicate, again.duplicate
            (False, True)
        """
        app, chosen = self.app, SendOptions.of(options)
        receipt: Receipt = app.send_message(
            self._compose(app, self.name, data, chosen),
            within=chosen.within,
            dispatcher=self.dispatcher,
            callbacks=chosen.callbacks,
        )
        return receipt

    async def asend(self, data: Any = None, **options: Unpack[SendArguments]) -> Receipt:
        """Like `send`, without blocking the caller's event loop."""
        app, chosen = self.app, SendOptions.of(options)
        receipt: Receipt = await app.asend_message(
            self._compose(app, self.name, data, chosen),
            within=chosen.within,
            dispatcher=self.dispatcher,
            callbacks=chosen.callbacks,
        )
        return receipt

    def _compose(
        self, app: App, name: str, data: Any, options: SendOptions, ref: str | None = None
    ) -> Message:
        at = app.clock()
        if self.request_data:
            data = self._merged(data)
        encoded = dump_json(data)
        if len(encoded) > app.settings.payload_limit:
            raise PayloadError(
                f"the payload of {name} has {len(encoded)} bytes; the setting payload_limit allows"
                f" {app.settings.payload_limit}: send less, or send a reference"
            )
        if self._invalid is not None:
            self._invalid(name, encoded)
        sender_id, sender_name = identify_sender(options.sender)
        if not sender_id and app.settings.sender_required and not name.startswith("thorn."):
            raise ConfigurationError(
                f"{name} has no sender, and the setting sender_required requires one: use send(…,"
                f" sender=…), or a sender_field that isn't None"
            )
        key = options.idempotency_key
        return Message(
            id=new_id("msg", at),
            event=name,
            data=encoded,
            at=at,
            sender=sender_id,
            sender_name=sender_name,
            ref=ref,
            headers=(
                merge_headers(self.headers, options.headers) if options.headers else self.headers
            ),
            context=json.loads(dump_json(options.context)) if options.context else EMPTY,
            timeout=self.timeout if options.timeout is None else options.timeout,
            retry_policy=self.retry_policy,
            envelope=self.envelope,
            declared=self.name if self._needed else None,
            idempotency=None if key is None else idempotency_digest(sender_id, name, key),
        )

    def _merged(self, data: Any) -> dict[str, Any]:
        if data is None:
            return self.request_data
        if not isinstance(data, Mapping):
            raise PayloadError(
                f"{self.name} has request_data, so its payload must be a mapping, not"
                f" {type(data).__name__}"
            )
        return {**self.request_data, **data}


def unknown_dispatcher(event: Event, app: App) -> str | None:
    """Return an error message if an app doesn't know an event's dispatcher, otherwise None.

    Args:
        event: The event.
        app: The app, whose plugins are searched.
    """
    if event.dispatcher is None:
        return None
    try:
        app.check_dispatcher(event.dispatcher)
    except ConfigurationError as error:
        return f"event {event.name!r}: {error}"
    return None


def check_switch(event: str, option: str, value: Any) -> bool:
    """Check a boolean option of an event.

    Raises:
        ConfigurationError: It isn't a boolean; a string such as "no" would count as true.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"event {event!r} has {option}={value!r}; use True or False")
    return value


def _check_mapping(event: str, option: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigurationError(
            f"event {event!r} has a {type(value).__name__} as its {option}; use a mapping"
        )
    return value


def _checked_policy(
    retry: bool | None,  # noqa: FBT001 - an event's option, not a switch of this function
    retry_max: int | None,
    retry_delay: float | None,
    policy: RetryPolicy | None,
) -> RetryPolicy | None:
    if retry not in (None, True, False) or not isinstance(policy, RetryPolicy | None):
        raise ConfigurationError(
            f"retry is {retry!r} and retry_policy is {policy!r}; use True or False, and a"
            " RetryPolicy"
        )
    if (retry_max is None) != (retry_delay is None):
        raise ConfigurationError(
            f"retry_max ({retry_max}) and retry_delay ({retry_delay}) go together; set both, or"
            f" use a retry_policy"
        )
    if retry is not False and retry_max is None and policy is None:
        return None
    return choose_policy(retry, retry_max, retry_delay, policy)


class _UndeclaredEvent(Event):
    """An event that is sent by name, without a declaration."""

    def _declare(self) -> None:
        pass


# -- the events declared in this process

_lock = threading.Lock()
# Weak references; the latest event is last.
_declared: dict[str, tuple[weakref.ref[Event], ...]] = {}
# Keeps the latest event of each name without an app alive, though its program may not.
_kept: dict[str, Event] = {}


def _declare(event: Event) -> None:
    with _lock:
        alive = tuple(ref for ref in _declared.get(event.name, ()) if ref() is not None)
        _declared[event.name] = (*alive, weakref.ref(event))
        if event._stays:
            kept = _kept if event._app is None else event._app.kept_events
            kept[event.name] = event


def find_event(name: str, app: App) -> Event | None:
    """Return the event declared with this name for this app or for any; the latest of several.

    Args:
        name: As declared, fields included.
        app: The app.
    """
    for ref in reversed(_declared.get(name, ())):
        event = ref()
        if event is not None and (event._app is None or event._app is app):
            return event
    return None


def declared_events(app: App) -> list[Event]:
    """Return every event declared for this app or for any, by name."""
    with _lock:
        names = sorted(_declared)
    found = (find_event(name, app) for name in names)
    return [event for event in found if event is not None]


def all_declared_events(app: App) -> list[Event]:
    """Like `declared_events`, but with all events of a name that several models declare."""
    with _lock:
        refs = [ref for name in sorted(_declared) for ref in _declared[name]]
    found = (ref() for ref in refs)
    return [event for event in found if event is not None and event._app in (None, app)]


def event_for(name: str, app: App) -> Event:
    """Return the event that this app sends under a name: the declared one, or a new one.

    Raises:
        InvalidNameError: The name is invalid.
    """
    declared = find_event(name, app)
    if declared is None:
        return _UndeclaredEvent(name, app=app)
    if declared._app is app or (declared._app is None and app_here() is app):
        return declared
    event = copy.copy(declared)
    event._app = app
    return event
