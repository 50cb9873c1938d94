"""Models that send events: webhook_model, ModelEvent, and what they need of a model."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload, runtime_checkable

import attrs

from thorn_core import signals
from thorn_core.errors import ConfigurationError
from thorn_core.events import Event, Receipt, get_app
from thorn_core.filters import Q
from thorn_core.hookspecs import hookimpl
from thorn_core.patterns import check_template, fill, has_fields
from thorn_core.unit_of_work import IMMEDIATE

if TYPE_CHECKING:
    from thorn_core.app import Thorn
    from thorn_core.events import Callbacks
    from thorn_core.values import Message

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=type)
Reverser = Callable[[Any], str | None]

TRIGGERS = ("create", "change", "delete", "m2m_add", "m2m_remove", "m2m_clear")
# What `class webhooks` may hold beside events and methods.
OPTIONS = ("sender_field", "reverse", "bulk")


@runtime_checkable
class ModelAdapter(Protocol):
    """What an ORM adapter does for a model class."""

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the six model signals for changes of a model; calling it twice is fine.

        Args:
            webhooks: Of the decorated class: `.model`, and what its events ask for.
        """
        ...

    def values(self, instance: Any) -> Mapping[str, Any]:
        """All column values, by name."""
        ...


class ModelWatcher(Protocol):
    """Who wants decorated classes to be watched: an app, or an ORM adapter in its place."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """The adapter that is to watch a class; None if it isn't this watcher's."""
        ...


class PlainModelAdapter:
    """For classes without an ORM: the program sends the model signals itself."""

    @hookimpl(trylast=True)
    def thorn_model_adapter(self, model: type) -> ModelAdapter:
        """Takes what no ORM adapter takes."""
        return self

    def watch(self, webhooks: ModelWebhooks) -> None:
        """There is nothing to watch."""

    def values(self, instance: Any) -> Mapping[str, Any]:
        """Its public attributes."""
        if attrs.has(type(instance)):
            return attrs.asdict(instance, recurse=False)
        return {k: v for k, v in vars(instance).items() if not k.startswith("_")}


class ModelAdapters:
    """The ORM adapters of an app, each asked for once.

    Args:
        ask: The hook, which every plugin answers.
    """

    def __init__(self, ask: Callable[..., ModelAdapter]) -> None:
        self._ask = ask
        self._found: weakref.WeakKeyDictionary[type, ModelAdapter] = weakref.WeakKeyDictionary()

    def of(self, model: type) -> ModelAdapter:
        """The adapter for a class."""
        adapter = self._found.get(model)
        if adapter is None:
            adapter = self._ask(model=model)
            # A class without one may yet be mapped.
            if not isinstance(adapter, PlainModelAdapter):
                self._found[model] = adapter
        return adapter


class ModelEvent(Event):
    """An event that a model's instances send when they change.

    Args:
        name: As for `Event`; may hold fields of the instance, `user.{.username}`.
        *conditions: `Q` values that must hold for the instance, or what an adapter makes them of.
        reverse: Gives the `ref` from an instance; else `get_absolute_url()`.
        sender_field: Attribute of the instance that is the sender, `author` or `author.company`.
        signal_honors_transaction: Wait for the commit; None is as the setting says (it does).
        propagate_errors: Raise what a filter or payload method raises, in the caller's save; else
            it is logged. That the store can't keep the message is raised in any case.
        **options: Those of `Event`; and conditions, as in `state__now_eq="PUBLISHED"`.

    Raises:
        InvalidNameError: The name isn't one.
        ValueError: A condition isn't one.
        ConfigurationError: An option isn't allowed.

    Example:
        >>> published = ModelEvent("article.published", state__now_eq="PUBLISHED")
        >>> published.dispatches_on_change()
        <ModelEvent article.published>
    """

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
        super().__init__(name, **chosen)
        self.filter = Q(*conditions, **options)
        self.reverse = reverse
        self.sender_field = sender_field
        self.signal_honors_transaction = signal_honors_transaction
        self.propagate_errors = propagate_errors
        self.triggers: set[tuple[str, str | None]] = set()
        self._webhooks: weakref.ref[ModelWebhooks] | None = None

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

    def bind(self, webhooks: ModelWebhooks) -> None:
        """Make it an event of a model's webhooks; done by `webhook_model`.

        Raises:
            ConfigurationError: It is another model's already.
        """
        if self._webhooks is not None and self._webhooks() not in (None, webhooks):
            raise ConfigurationError(
                f"{self!r} belongs to {self.webhooks.model.__name__} already;"
                f" make another one for {webhooks.model.__name__}"
            )
        self._webhooks = weakref.ref(webhooks)

    @property
    def webhooks(self) -> ModelWebhooks:
        """The webhooks of the model that it belongs to.

        Raises:
            ConfigurationError: It belongs to none.
        """
        webhooks = self._webhooks() if self._webhooks is not None else None
        if webhooks is None:
            raise ConfigurationError(
                f"{self!r} belongs to no model; put it into a class decorated with webhook_model"
            )
        return webhooks

    def send(self, data: Any = None, *, instance: Any = None, **options: Any) -> Receipt:
        """Send it for an instance by hand, whatever its filter says.

        Args:
            data: The payload; None is the model's own of the instance.
            instance: The instance; may be left out if the name holds no fields.
            **options: Those of `Event.send`.
        """
        if instance is None:
            return super().send(data, **options)
        return self._send(instance, data, **options)

    def send_from_instance(self, instance: Any, **options: Any) -> Receipt:
        """Send it with the model's own payload of an instance, whatever its filter says."""
        return self._send(instance, None, **options)

    def signalled(
        self,
        instance: Any,
        *,
        previous: Mapping[str, Any] | None,
        within: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Send it if the filter holds, because a model signal says that something happened.

        What goes wrong with the model's own methods is logged, unless `propagate_errors`.

        Raises:
            StoreError: The message can't be kept: then what it tells of had better not happen.
        """
        try:
            if not self.filter(instance, previous):
                return
            app = self.app
            message, _ = self._compose_for(app, instance, None, context=context)
            within = within if self._waits(app) else IMMEDIATE
        except Exception:
            if self.propagate_errors:
                raise
            logger.exception("%r could not be sent for a %s", self, type(instance).__name__)
            return
        app.send_message(message, within=within, dispatcher=self.dispatcher)

    def _send(self, instance: Any, data: Any, *, within: Any = None, **options: Any) -> Receipt:
        app = self.app
        message, callbacks = self._compose_for(app, instance, data, **options)
        app.send_message(message, within=within, dispatcher=self.dispatcher, callbacks=callbacks)
        return Receipt(app, message)

    def _compose_for(
        self,
        app: Thorn,
        instance: Any,
        data: Any,
        *,
        sender: Any = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> tuple[Message, Callbacks | None]:
        webhooks = self.webhooks
        own = webhooks.headers(instance)
        return self._compose(
            app,
            fill(self.name, instance) if has_fields(self.name) else self.name,
            webhooks.payload(instance, app) if data is None else data,
            sender=self._sender(instance) if sender is None else sender,
            headers={**own, **(headers or {})} if own or headers else None,
            ref=webhooks.ref(instance, self.reverse, app),
            **options,
        )

    def _waits(self, app: Thorn) -> bool:
        if self.signal_honors_transaction is None:
            return app.settings.signal_honors_transaction
        return self.signal_honors_transaction

    def _sender(self, instance: Any) -> Any:
        field = self.sender_field or self.webhooks.sender_field
        return attrgetter(field.replace("__", "."))(instance) if field else None


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
        "schema",
        "description",
        "example",
        "app",
    }
)


class ModelWebhooks:
    """The webhooks of a model: `Article.webhooks`.

    Attributes:
        model: The class.
        events: Its `ModelEvent`s, by the names they were declared under.
        sender_field: Attribute of an instance that is the sender.
        reverse: Gives the `ref` from an instance.
        bulk: Statements that change many rows at once, past the ORM's instances, send events too.
    """

    def __init__(self, model: type, declaration: Any, options: Mapping[str, Any]) -> None:
        declared = {**_public(declaration), **options}
        events = {k: v for k, v in declared.items() if isinstance(v, ModelEvent)}
        for name in declared.keys() - events.keys() - {*OPTIONS, "payload", "headers"}:
            if name.startswith("on_") or name in options:
                raise ConfigurationError(
                    f"{model.__name__}.webhooks.{name} is {declared[name]!r}, not a ModelEvent"
                )
        self.model = model
        self.declaration = declaration
        self.sender_field: str | None = declared.get("sender_field")
        self.reverse: Reverser | None = declared.get("reverse")
        self.bulk: bool = bool(declared.get("bulk", False))
        self.events = events
        self._payload = getattr(declaration, "payload", None)
        self._headers = getattr(declaration, "headers", None)
        self._by_trigger: dict[tuple[str, str | None], list[ModelEvent]] = {}
        for name, event in self.events.items():
            event.bind(self)
            if not event.triggers:
                if name not in ("on_create", "on_change", "on_delete"):
                    raise ConfigurationError(
                        f"{model.__name__}.webhooks.{name} doesn't say when it is sent; name it"
                        " on_create, on_change or on_delete, or add .dispatches_on_change() or such"
                    )
                event._dispatches_on(name.removeprefix("on_"))
            for trigger in event.triggers:
                self._by_trigger.setdefault(trigger, []).append(event)

    def __repr__(self) -> str:
        return f"<webhooks of {self.model.__name__}: {', '.join(self.events)}>"

    @property
    def previous_fields(self) -> frozenset[str]:
        """The fields whose former values the filters ask for."""
        return frozenset().union(*(event.filter.now_fields for event in self.events.values()))

    @property
    def m2m_fields(self) -> frozenset[str]:
        """The many-to-many fields that events are sent for."""
        return frozenset(field for _, field in self._by_trigger if field is not None)

    def triggered(self, trigger: str, field: str | None = None) -> Sequence[ModelEvent]:
        """The events sent on a trigger."""
        return self._by_trigger.get((trigger, field), ())

    def payload(self, instance: Any, app: Thorn) -> Any:
        """An instance's payload: by the declaration's method, the model's, or all its values."""
        if self._payload is not None:
            return self._payload(instance)
        if hasattr(instance, "webhook_payload"):
            return instance.webhook_payload()
        return dict(app.model_adapter(type(instance)).values(instance))

    def headers(self, instance: Any) -> Mapping[str, str]:
        """An instance's extra headers: by the declaration's method, the model's, or none."""
        if self._headers is not None:
            return self._headers(instance) or {}
        if hasattr(instance, "webhook_headers"):
            return instance.webhook_headers() or {}
        return {}

    def ref(self, instance: Any, reverse: Reverser | None, app: Thorn) -> str | None:
        """An instance's URL: by the event's reverser, the model's, or `get_absolute_url()`.

        A path is made absolute, if it is known what to.
        """
        reverse = reverse or self.reverse
        if isinstance(reverse, ModelReverser):
            return reverse.reverse(instance, app)
        if reverse is not None:
            url = reverse(instance)
        elif hasattr(instance, "get_absolute_url"):
            url = str(instance.get_absolute_url())
        else:
            url = None
        return None if url is None else app.absolute_url(url)


def _public(declaration: Any) -> dict[str, Any]:
    if declaration is None:
        return {}
    names = [name for name in dir(declaration) if not name.startswith("_")]
    return {name: getattr(declaration, name) for name in names}


@attrs.frozen
class ModelReverser:
    """Gives an instance's URL by the name of a view; made by `model_reverser`."""

    view: str
    args: tuple[str, ...]
    kwargs: Mapping[str, str]

    def __call__(self, instance: Any) -> str:
        """The URL, by the default app's web adapter."""
        return self.reverse(instance, get_app())

    def reverse(self, instance: Any, app: Thorn) -> str:
        """The URL, by an app's web adapter."""
        url = app.plugins.reverse(
            self.view,
            [attrgetter(path)(instance) for path in self.args],
            {key: attrgetter(path)(instance) for key, path in self.kwargs.items()},
        )
        return app.absolute_url(url)


def model_reverser(view: str, *args: str, **kwargs: str) -> ModelReverser:
    """Make a reverser: the URL of a view whose arguments are attributes of the instance.

    Args:
        view: The view's name in the web framework.
        *args: Attributes for positional arguments, nested by dots: `category.name`.
        **kwargs: Attributes for named arguments.

    Example:
        >>> model_reverser("article:detail", "category.name", uuid="uuid")
        ModelReverser(view='article:detail', args=('category.name',), kwargs={'uuid': 'uuid'})
    """
    return ModelReverser(view, args, kwargs)


@overload
def webhook_model(model: M, /) -> M: ...
@overload
def webhook_model(**options: Any) -> Callable[[M], M]: ...
def webhook_model(model: M | None = None, /, **options: Any) -> M | Callable[[M], M]:
    """Make a class send events: as `@webhook_model`, or `@webhook_model(on_create=…)`.

    The class's inner `class webhooks` holds `ModelEvent`s, `sender_field`, `reverse`, and the
    methods `payload(self, instance)` and `headers(self, instance)`. Afterwards `Model.webhooks`
    is a `ModelWebhooks`. Subclasses send its events too.

    Args:
        model: The class.
        **options: Events, `sender_field` and `reverse`, beside or in place of `class webhooks`.

    Raises:
        ConfigurationError: What is declared isn't an event or option.

    Example:
        >>> from thorn_core import Thorn, signals
        >>> app = Thorn(dispatcher="outbox").make_default()
        >>> @webhook_model
        ... class Article:
        ...     class webhooks:
        ...         on_create = ModelEvent("article.created")
        ...         def payload(self, article):
        ...             return {"title": article.title}
        ...     title = "Thorn"
        >>> results = signals.model_created.send(Article, instance=Article())
        >>> [message.payload for message in app.messages_to_route()]
        [{'title': 'Thorn'}]
        >>> app.close()
    """

    def decorate(cls: M) -> M:
        inner = cls.__dict__.get("webhooks")
        webhooks = ModelWebhooks(cls, inner() if isinstance(inner, type) else inner, options)
        cls.webhooks = webhooks  # type: ignore[attr-defined]
        with _lock:
            _models.add(cls)
            for model_signal, receiver in _RECEIVERS:
                model_signal.connect(receiver)
            watchers = list(_watchers)
        try:
            for watcher in watchers:
                watch_model(watcher, cls)
        except Exception:
            with _lock:
                _models.discard(cls)
            raise
        return cls

    return decorate if model is None else decorate(model)


# -- what has been decorated in this process, and the signals that reach it

_lock = threading.Lock()
# Weakly, and not the webhooks: they hold their class.
_models: weakref.WeakSet[type] = weakref.WeakSet()
_watchers: weakref.WeakSet[ModelWatcher] = weakref.WeakSet()


def watch_models(watcher: ModelWatcher) -> None:
    """Let ORM adapters watch every decorated class: those there are, and those to come.

    An app does it when it is made. An adapter whose apps are made late does it for its own classes.

    Args:
        watcher: Names the adapters; it is asked for as long as it lives.

    Example:
        >>> class Watcher:
        ...     def model_adapter(self, model):
        ...         return PlainModelAdapter() if model.__module__ == "mine" else None
        >>> watcher = Watcher()
        >>> watch_models(watcher)
    """
    with _lock:
        _watchers.add(watcher)
        models = list(_models)
    for model in models:
        watch_model(watcher, model)


def watch_model(watcher: ModelWatcher, model: type) -> None:
    """Let an ORM adapter watch a decorated class."""
    adapter = watcher.model_adapter(model)
    if adapter is not None:
        adapter.watch(model.__dict__["webhooks"])


def _events(model: type, trigger: str, field: str | None = None) -> Iterator[ModelEvent]:
    """The events on a trigger, of a class and of the decorated classes it inherits from."""
    for cls in model.__mro__:
        webhooks = cls.__dict__.get("webhooks")
        if isinstance(webhooks, ModelWebhooks):
            yield from webhooks.triggered(trigger, field)


def _created(model: type, *, instance: Any, within: Any = None, **_: Any) -> None:
    for event in _events(type(instance), "create"):
        event.signalled(instance, previous=None, within=within)


def _changed(
    model: type,
    *,
    instance: Any,
    previous: Mapping[str, Any] | None = None,
    within: Any = None,
    **_: Any,
) -> None:
    for event in _events(type(instance), "change"):
        event.signalled(instance, previous=previous or {}, within=within)


def _deleted(model: type, *, instance: Any, within: Any = None, **_: Any) -> None:
    for event in _events(type(instance), "delete"):
        event.signalled(instance, previous={}, within=within)


def _m2m(trigger: str) -> Callable[..., None]:
    def receive(
        model: type,
        *,
        instance: Any,
        field: str,
        related: Sequence[Any] = (),
        within: Any = None,
        **_: Any,
    ) -> None:
        for event in _events(type(instance), trigger, field):
            context = {"field": field, "related": [str(_key(item)) for item in related]}
            event.signalled(instance, previous={}, within=within, context=context)

    return receive


def _key(item: Any) -> Any:
    for attribute in ("pk", "id"):
        if getattr(item, attribute, None) is not None:
            return getattr(item, attribute)
    return item


_RECEIVERS = (
    (signals.model_created, _created),
    (signals.model_changed, _changed),
    (signals.model_deleted, _deleted),
    (signals.model_m2m_added, _m2m("m2m_add")),
    (signals.model_m2m_removed, _m2m("m2m_remove")),
    (signals.model_m2m_cleared, _m2m("m2m_clear")),
)
