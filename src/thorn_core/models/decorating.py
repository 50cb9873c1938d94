"""webhook_model: makes classes send events when their signals arrive."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoints, entry_points
from typing import Any, TypeVar, overload

from thorn_core import signals
from thorn_core.errors import ConfigurationError
from thorn_core.hookspecs import PROJECT
from thorn_core.models.event import ModelEvent
from thorn_core.models.names import class_names
from thorn_core.models.webhooks import ATTRIBUTE, ModelWebhooks, webhooks_of
from thorn_core.ports.model_adapter import ModelWatcher

M = TypeVar("M", bound=type)


@overload
def webhook_model(model: M, /) -> M: ...
@overload
def webhook_model(**options: Any) -> Callable[[M], M]: ...
def webhook_model(model: M | None = None, /, **options: Any) -> M | Callable[[M], M]:
    """Make a class send events: use `@webhook_model`, or `@webhook_model(on_create=…)`.

    The class's inner `class webhooks` contains `ModelEvent`s, `sender_field`, `reverse`, and the
    methods `payload(self, instance)` and `headers(self, instance)`. Afterwards `Model.webhooks`
    is a `ModelWebhooks`. Subclasses send its events too.

    Args:
        model: The class.
        **options: Events, `sender_field` and `reverse`, besides or instead of `class webhooks`.

    Raises:
        ConfigurationError: A declaration is neither an event nor an option.

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
        _announce(cls)
        inner = _declaration(cls)
        webhooks = ModelWebhooks(cls, inner() if isinstance(inner, type) else inner, options)
        # An ORM may add names later; its adapter checks again once it knows them.
        webhooks.check_names(class_names)
        setattr(cls, ATTRIBUTE, webhooks)
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
            _forget(cls, inner)
            raise
        return cls

    return decorate if model is None else decorate(model)


def _forget(cls: type, inner: Any) -> None:
    """Undo a refused declaration; otherwise every later app would refuse it again."""
    with _lock:
        _models.discard(cls)
    delattr(cls, ATTRIBUTE)
    if inner is None:
        del cls.webhooks  # type: ignore[attr-defined]
    else:
        cls.webhooks = inner  # type: ignore[attr-defined]


def _declaration(cls: type) -> Any:
    inner = vars(cls).get("webhooks")
    if not isinstance(inner, type) and hasattr(inner, "__get__"):
        raise ConfigurationError(
            f"{cls.__name__}.webhooks is a {type(inner).__name__}, not a class of events: a field"
            f" or another class's related_name='webhooks' has replaced it; rename that"
        )
    return inner


def _announce(cls: type) -> None:
    """Notify the plugin of a class's ORM that the class was decorated, before there is an app.

    The plugin raises if the ORM's adapter isn't set up. It has the name of the ORM's package.
    """
    packages = {base.__module__.partition(".")[0] for base in cls.__mro__}
    for entry_point in _plugins():
        if entry_point.name in packages:
            declared = getattr(entry_point.load(), "model_declared", None)
            if declared is not None:
                declared(cls)


@functools.cache
def _plugins() -> EntryPoints:
    return entry_points(group=PROJECT)


# -- the classes decorated in this process, and their signals

_lock = threading.Lock()
# Weak references to classes, not to webhooks, because webhooks reference their class.
_models: weakref.WeakSet[type] = weakref.WeakSet()
_watchers: weakref.WeakSet[ModelWatcher] = weakref.WeakSet()


def watch_models(watcher: ModelWatcher) -> None:
    """Let ORM adapters watch every decorated class, present and future.

    Apps call this when they are created; adapters whose apps are created late call it themselves.

    Args:
        watcher: Finds the adapters; used for as long as it lives.

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
        adapter.watch(vars(model)[ATTRIBUTE])


def _events(model: type, trigger: str, field: str | None = None) -> Iterator[ModelEvent]:
    """Return the events for a trigger, of a class and of the decorated classes it inherits from."""
    for cls in model.__mro__:
        webhooks = webhooks_of(cls)
        if webhooks is not None:
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
