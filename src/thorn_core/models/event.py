"""ModelEvent: an event that a model's instances send when they change."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, Self, Unpack

import attrs

from thorn_core import thorn_1
from thorn_core.delivery import merge_headers
from thorn_core.errors import ConfigurationError
from thorn_core.events import Event, check_switch
from thorn_core.filters import Q
from thorn_core.models.names import check_optional_path, follow
from thorn_core.models.reversing import Reverser, check_reverser
from thorn_core.patterns import check_template, fill, has_fields
from thorn_core.ports.app import App
from thorn_core.receipts import Receipt
from thorn_core.send_options import SendArguments, SendOptions
from thorn_core.spelling import misspelt
from thorn_core.values import OPERATOR, Message

logger = logging.getLogger(__name__)


class EventsModel(Protocol):
    """The interface of a model's webhooks for its events.

    Attributes:
        model: The class.
        sender_field: Path to an instance's sender.
    """

    model: type
    sender_field: str | None

    def payload(self, instance: Any, app: App) -> Any:
        """Return an instance's payload."""
        ...

    def headers(self, instance: Any) -> Mapping[str, str]:
        """Return an instance's extra headers."""
        ...

    def ref(self, instance: Any, reverse: Reverser | None, app: App) -> str | None:
        """Return an instance's URL."""
        ...


class ModelEvent(Event):
    """An event that a model's instances send when they change.

    Args:
        name: As for `Event`; may contain fields of the instance, `user.{.username}`.
        *conditions: `Q` values that must be true for the instance, or an adapter's own.
        reverse: Returns the `ref` of an instance; default: `get_absolute_url()`.
        sender_field: Path to the sender, `author` or `author.company`. If it is None or an
            anonymous user, only subscriptions without an owner receive the event.
        signal_honors_transaction: Wait for the commit; None uses the setting (default: True).
        propagate_errors: Raise errors of filter and payload methods in the caller's save, instead
            of logging them. Errors of the store are always raised.
        **options: Options of `Event`, and conditions such as `state__now_eq="PUBLISHED"`.

    Raises:
        InvalidNameError: The name is invalid.
        ValueError: A condition is invalid.
        ConfigurationError: An option isn't allowed.

    Example:
        >>> published = ModelEvent("article.published", state__now_eq="PUBLISHED")
        >>> published.dispatches_on_change()
        <ModelEvent article.published>
    """

    _replaced = thorn_1.MODEL_EVENT
    # Its model keeps a reference.
    _stays = False

    def __init__(
        self,
        name: str,
        *conditions: Any,
        reverse: Reverser | None = None,
        sender_field: str | None = None,
        signal_honors_transaction: bool | None = None,
        propagate_errors: bool = False,
        **options: Any,
    ) -> None:
        chosen = {k: options.pop(k) for k in _EVENT_OPTIONS & options.keys()}
        _check_options(name, options)
        super().__init__(name, **chosen)
        self.filter = Q(*conditions, **options)
        self.reverse = check_reverser("reverse", reverse)
        self.sender_field = check_optional_path("sender_field", sender_field)
        if signal_honors_transaction is not None:
            check_switch(name, "signal_honors_transaction", signal_honors_transaction)
        self.signal_honors_transaction = signal_honors_transaction
        self.propagate_errors = check_switch(name, "propagate_errors", propagate_errors)
        self.triggers: set[tuple[str, str | None]] = set()
        self._webhooks: weakref.ref[EventsModel] | None = None

    @staticmethod
    def _checked_name(name: str) -> str:
        return check_template(name)

    def dispatches_on_create(self) -> Self:
        """Send when an instance has been created."""
        return self._dispatches_on("create")

    def dispatches_on_change(self) -> Self:
        """Send when an instance has been changed."""
        return self._dispatches_on("change")

    def dispatches_on_delete(self) -> Self:
        """Send when an instance has been deleted."""
        return self._dispatches_on("delete")

    def dispatches_on_m2m_add(self, field: str) -> Self:
        """Send when something has been added to a many-to-many field."""
        return self._dispatches_on("m2m_add", field)

    def dispatches_on_m2m_remove(self, field: str) -> Self:
        """Send when something has been removed from a many-to-many field."""
        return self._dispatches_on("m2m_remove", field)

    def dispatches_on_m2m_clear(self, field: str) -> Self:
        """Send when a many-to-many field has been cleared."""
        return self._dispatches_on("m2m_clear", field)

    def _dispatches_on(self, trigger: str, field: str | None = None) -> Self:
        self.triggers.add((trigger, field))
        return self

    def bind(self, webhooks: EventsModel) -> None:
        """Bind the event to a model's webhooks; called by `webhook_model`.

        Raises:
            ConfigurationError: It already belongs to another model.
        """
        if self._webhooks is not None and self._webhooks() not in (None, webhooks):
            raise ConfigurationError(
                f"{self!r} already belongs to {self.webhooks.model.__name__}; create another one"
                f" for {webhooks.model.__name__}"
            )
        self._webhooks = weakref.ref(webhooks)

    @property
    def webhooks(self) -> EventsModel:
        """The webhooks of the event's model.

        Raises:
            ConfigurationError: It belongs to no model.
        """
        webhooks = self._webhooks() if self._webhooks is not None else None
        if webhooks is None:
            raise ConfigurationError(
                f"{self!r} belongs to no model; declare it in a class decorated with webhook_model"
            )
        return webhooks

    def send(
        self, data: Any = None, *, instance: Any = None, **options: Unpack[SendArguments]
    ) -> Receipt:
        """Send the event by hand, ignoring its filter.

        Args:
            data: The payload; None uses the model's payload of the instance. An instance of the
                model is accepted too, as in Thorn 1.x.
            instance: The instance; optional if the name contains no fields.
            **options: Options of `Event.send`.

        Raises:
            ConfigurationError: As for `Event.send`; or the event belongs to no model.
        """
        instance, data = self._given(instance, data)
        if instance is None:
            return super().send(data, **options)
        app, chosen = self.app, SendOptions.of(options)
        receipt: Receipt = app.send_message(
            self._compose_for(app, instance, data, chosen),
            within=chosen.within,
            dispatcher=self.dispatcher,
            callbacks=chosen.callbacks,
        )
        return receipt

    async def asend(
        self, data: Any = None, *, instance: Any = None, **options: Unpack[SendArguments]
    ) -> Receipt:
        """Send the event by hand without blocking the caller's loop; otherwise like `send`.

        With `within=`, the model's payload method runs inside the transaction, so that it can load
        missing attributes.
        """
        instance, data = self._given(instance, data)
        if instance is None:
            return await super().asend(data, **options)
        app, chosen = self.app, SendOptions.of(options)
        receipt: Receipt = await app.asend_message(
            partial(self._compose_for, app, instance, data, chosen),
            within=chosen.within,
            dispatcher=self.dispatcher,
            callbacks=chosen.callbacks,
        )
        return receipt

    def _given(self, instance: Any, data: Any) -> tuple[Any, Any]:
        webhooks = self._webhooks() if self._webhooks is not None else None
        if instance is None and webhooks is not None and isinstance(data, webhooks.model):
            return data, None
        return instance, data

    def send_from_instance(self, instance: Any, **options: Unpack[SendArguments]) -> Receipt:
        """Send the event with the model's payload of an instance, ignoring its filter."""
        return self.send(instance=instance, **options)

    async def asend_from_instance(self, instance: Any, **options: Unpack[SendArguments]) -> Receipt:
        """Like `send_from_instance`, without blocking the caller's loop."""
        return await self.asend(instance=instance, **options)

    def signalled(
        self,
        instance: Any,
        *,
        previous: Mapping[str, Any] | None,
        within: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Send the event for a model signal if its filter is true.

        Errors of the model's own methods are logged, unless `propagate_errors` is set.

        Raises:
            StoreError: The message can't be stored, so the change must fail too.
        """
        try:
            if not self.filter(instance, previous):
                return
            app = self.app
            message = self._compose_for(app, instance, None, SendOptions(context=context))
        except Exception:
            if self.propagate_errors:
                raise
            logger.exception("%r could not be sent for a %s", self, type(instance).__name__)
            with suppress(ConfigurationError):
                self.app.count_unsent(self.name)
            return
        app.send_message(
            message,
            within=within,
            at_once=not self._honors_transaction(app),
            dispatcher=self.dispatcher,
        )

    def _compose_for(self, app: App, instance: Any, data: Any, options: SendOptions) -> Message:
        webhooks = self.webhooks
        own = webhooks.headers(instance)
        options = attrs.evolve(
            options,
            sender=self._sender(instance) if options.sender is None else options.sender,
            headers=merge_headers(own, options.headers) if own else options.headers,
        )
        return self._compose(
            app,
            fill(self.name, instance) if has_fields(self.name) else self.name,
            webhooks.payload(instance, app) if data is None else data,
            options,
            ref=webhooks.ref(instance, self.reverse, app),
        )

    def _honors_transaction(self, app: App) -> bool:
        if self.signal_honors_transaction is None:
            return app.settings.signal_honors_transaction
        return self.signal_honors_transaction

    def _sender(self, instance: Any) -> Any:
        """Return the sender, or the operator if `sender_field` is set but empty on the instance."""
        path = self.sender_field or self.webhooks.sender_field
        if path is None:
            return None
        sender = follow(instance, path)
        return OPERATOR if sender is None or sender == "" else sender


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a condition that looks like an option.

    Raises:
        ConfigurationError: It does.
    """
    known = (*_EVENT_OPTIONS, *_OWN_OPTIONS)
    for option in options:
        near = misspelt(option, known, plurals=True)
        if near is not None:
            raise ConfigurationError(
                f"event {name!r} has the unknown option {option!r}; did you mean {near!r}?"
            )
        if option in _ELSEWHERE:
            raise ConfigurationError(
                f"event {name!r} has the unknown option {option!r}; {_ELSEWHERE[option]}"
            )


_OWN_OPTIONS = ("reverse", "sender_field", "signal_honors_transaction", "propagate_errors")
_ELSEWHERE = {
    "signal_dispatcher": "send the signals of thorn_core.signals",
    "fields": "put it into `class webhooks`",
    "bulk": "put it into `class webhooks`",
    "payload": "put a method into `class webhooks`",
    "sender": "set sender_field to the attribute with the sender",
}
_EVENT_OPTIONS = frozenset(
    {
        "timeout",
        "retry",
        "retry_max",
        "retry_delay",
        "retry_policy",
        "dispatcher",
        "recipient_validators",
        "subscribers",
        "request_data",
        "allow_keepalive",
        "headers",
        "envelope",
        "schema",
        "description",
        "example",
        "app",
    }
)
