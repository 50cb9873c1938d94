"""The app, which connects settings, plugins, store and dispatcher."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self, TypeVar, cast

import attrs

from thorn_core import current_app, thorn_1
from thorn_core.answers import check_transport, made, near
from thorn_core.checks import check_dispatchers, check_event, check_settings, log_findings
from thorn_core.current_app import app_here, forget_default_app, set_default_app
from thorn_core.dispatchers import BuiltinDispatchers, Dispatcher
from thorn_core.errors import ConfigurationError, ThornError
from thorn_core.events import Event, declared_events, find_event
from thorn_core.history import HistoryCalls
from thorn_core.message_recipients import NOBODY, Unstored, unstored_recipients
from thorn_core.models import ModelAdapter, ModelAdapters, PlainModelAdapter, watch_models
from thorn_core.plugins import Plugins
from thorn_core.ports.store import Store
from thorn_core.ports.transport import Transport
from thorn_core.process import keep
from thorn_core.progress import Progress
from thorn_core.recipients import complete_validators
from thorn_core.sending import Sending, SendingCalls
from thorn_core.settings import Settings
from thorn_core.signatures import make_keys
from thorn_core.static_subscribers import StaticSubscribers
from thorn_core.subscribing import SubscriptionCalls
from thorn_core.subscriptions import (
    SubscriptionRules,
)
from thorn_core.values import Message
from thorn_core.worker import EventOptions, LoopThread, Wiring, Worker

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds that a fork waits for the engine; calls of a store take much less.
FORK_PATIENCE = 5.0
NO_OPTIONS = EventOptions()


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


class Thorn(SendingCalls, SubscriptionCalls, HistoryCalls):
    """An app: declares, stores and delivers events. The first one created is the default.

    Args:
        store: A store, its URL (`memory://`), or an object with a URL (a SQLAlchemy engine).
        dispatcher: Name of the dispatcher; replaces the setting.
        settings: All other configuration.
        plugins: Objects or modules with hook implementations, in addition to the installed ones.
        transport: Creates the transport, instead of a plugin; called on the event loop that uses
            it.
        clock: Returns the time, aware, in UTC.
        default: Make this the default app if there is none.

    Raises:
        ConfigurationError: A plugin, the store's URL, the dispatcher, a signature scheme or a
            static subscriber is invalid.

    Example:
        >>> from thorn_core.testing import LocalRecipient
        >>> settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1024, 65536))
        >>> with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        ...     subscription = app.subscribe("article.*", recipient.url)
        ...     bool(app.send("article.created", {"title": "Hello"}))
        True
    """

    def __init_subclass__(cls) -> None:
        thorn_1.refuse_overrides(cls, thorn_1.APP)

    def __init__(
        self,
        *,
        store: Any = "memory://",
        dispatcher: str | None = None,
        settings: Settings | None = None,
        plugins: Iterable[Any] = (),
        transport: Callable[[], Transport] | None = None,
        clock: Callable[[], datetime] = utc_now,
        default: bool = True,
    ) -> None:
        # Keeps the events that are declared for this app alive.
        self.kept_events: dict[str, Event] = {}
        self.settings = settings or Settings()
        self.clock = clock
        self.plugins = Plugins(plugins, builtin=(BuiltinDispatchers(), PlainModelAdapter()))
        self._model_adapters = ModelAdapters(self.plugins.hook.thorn_model_adapter)
        self.codecs = {**self.plugins.gather("thorn_codecs"), **self.settings.codecs}
        self.decoders = self.plugins.gather("thorn_decoders")
        self.rules = SubscriptionRules(
            settings=self.settings,
            content_types=tuple(self.codecs),
            schemes=self._chosen_schemes(),
            validate=self.plugins.validate_recipient,
        )
        self._static = StaticSubscribers(self.rules)
        self._event_options: dict[int, tuple[EventOptions, EventOptions]] = {}
        self._make_transport = None if transport is None else check_transport(transport)
        self._dispatcher_name = dispatcher or self.settings.dispatcher
        self.store: Store = (
            store if isinstance(store, Store) else self.plugins.store(store, self.settings)
        )
        self._closed = False
        self._imported = False
        self._begin()
        self.dispatcher()
        log_findings(check_settings(self.settings))
        keep(self)
        watch_models(self)
        if default:
            set_default_app(self, only_if_none=True)
            if app_here() is self:
                log_findings(check_dispatchers(self))

    def __repr__(self) -> str:
        return f"<Thorn {type(self.store).__name__} {self._dispatcher_name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def before_fork(self) -> None:
        """Suspend the engine before a fork, and release everything that no child may inherit.

        Waits for running callbacks of the engine and calls of the store, for 5 s at most. A worker
        on the caller's own event loop isn't suspended.
        """
        until = time.monotonic() + FORK_PATIENCE
        held = self._thread.hold(FORK_PATIENCE)
        under_way = wait(list(self._calls), max(until - time.monotonic(), 0)).not_done
        if not held or under_way:
            logger.warning(
                "the process forked while %r was running; the child may not be able to use its"
                " store",
                self,
            )
        self.store.before_fork()

    def after_fork_in_parent(self) -> None:
        """Resume the engine in the parent process after a fork."""
        self._thread.release()

    def after_fork(self) -> Any:
        """Start over in a forked child; return the inherited objects that it mustn't use."""
        inherited = (self._thread, self._engine, self._sending)
        self._begin()
        self.store.after_fork()
        return inherited

    def _begin(self) -> None:
        """Set up the state of this process; a forked child does it again."""
        self._lock = threading.RLock()
        self._unsent: Counter[str] = Counter()
        self._progress = Progress()
        self._sending = Sending(self, self.plugins, self._dispatcher_name)
        self._thread = LoopThread("thorn-engine")
        self._calls: set[Future[Any]] = set()
        self._engine: Worker | None = None

    def _chosen_schemes(self) -> tuple[Any, ...]:
        known = self.plugins.gather("thorn_signature_schemes")
        for name in self.settings.signatures:
            if name not in known:
                raise ConfigurationError(f"setting signatures names {name!r}; {near(name, known)}")
        schemes = tuple(known[name] for name in self.settings.signatures)
        make_keys(schemes)  # raises if they can't sign: no common key, or a missing package
        return schemes

    # -- life cycle

    def make_default(self) -> Self:
        """Make this the default app, the one that events without an app of their own use."""
        set_default_app(self)
        return self

    def close(self) -> None:
        """Stop everything; requests in flight may finish within the grace period.

        Remaining deliveries stay pending in the store. It may be called more than once, and the
        interpreter calls it at exit.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        forget_default_app(self)
        self._sending.close()
        if self._engine is not None and self._thread.running:
            self._engine.stop()
            self._thread.run(self._engine.aclose())
        self._thread.stop()
        self.store.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the engine's loop, for dispatchers.

        Raises:
            ThornError: The app is closed.
        """
        return self._thread.submit(coroutine)

    @property
    def engine(self) -> Worker:
        """The worker on the engine's loop, which dispatchers share."""
        with self._lock:
            if self._engine is None:
                self._engine = self.worker()
            return self._engine

    def worker(self, *, concurrency: int | None = None) -> Worker:
        """Create a worker for this app's store; start it with `run()` or `await arun()`.

        Args:
            concurrency: Maximum requests in flight; replaces the setting.

        Raises:
            ConfigurationError: The concurrency is invalid.
        """
        self.import_events()
        settings = self.settings
        if concurrency is not None:
            settings = settings.evolve(concurrency=concurrency)
        return Worker(
            Wiring(
                app=self,
                store=self.store,
                plugins=self.plugins,
                settings=settings,
                codecs=self.codecs,
                schemes=self.rules.schemes,
                policy=settings.effective_retry_policy,
                clock=self.clock,
                make_transport=partial(self._made_transport, settings),
                options=self._options,
                unstored=self._unstored,
                knows=self._knows,
                attempted=self._sending.attempted,
                progressed=self._progressed,
                calls=self._calls,
            ),
            self._thread,
        )

    def import_events(self, *modules: str) -> None:
        """Import the modules that declare events, so that this process knows them.

        A worker needs the declarations of events that have their own subscribers, validators or
        `allow_keepalive`. A new worker calls this method. It imports the modules of the setting
        `imports` and those of adapters (Django: `events` and `webhooks` of every installed app).

        Args:
            *modules: Dotted names of further modules.

        Raises:
            ConfigurationError: A module can't be found.

        Example:
            >>> with Thorn() as app:
            ...     app.import_events("json")
        """
        first = not self._imported
        for name in (*modules, *(self.settings.imports if first else ())):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"can't import the module {name!r} named by the setting imports or by"
                    f" --import: {error}"
                ) from error
        if first:
            self.plugins.hook.thorn_import_events()
            self._imported = True

    def _made_transport(self, settings: Settings) -> Transport:
        if self._make_transport is None:
            return self.plugins.transport(settings)
        transport: Transport = self._make_transport()
        return made(transport, Transport, f"transport={self._make_transport!r}")

    def check_transport(self) -> None:
        """Check the transport factory: create a transport on the engine's loop, and close it.

        Raises:
            ConfigurationError: It fails, or doesn't return a transport.
        """
        if self._make_transport is None and not self.plugins.replaces_transport:
            return

        async def try_it() -> None:
            await self._made_transport(self.settings).close()

        try:
            self.submit(try_it()).result()
        except ThornError:
            raise
        except Exception as error:
            raise ConfigurationError(f"the transport could not be created: {error}") from error

    def dispatcher(self, name: str | None = None) -> Dispatcher:
        """Return the dispatcher with a name, or the app's for None; create it at first use.

        Raises:
            ConfigurationError: No plugin knows the name.
        """
        return self._sending.dispatcher(name)

    def dispatching_by(self, dispatcher: Dispatcher) -> AbstractContextManager[None]:
        """Use this dispatcher inside the block, even for events with their own; for tests."""
        return self._sending.substituted(dispatcher)

    def model_adapter(self, model: type) -> ModelAdapter:
        """Return the ORM adapter for a class."""
        return self._model_adapters.of(model)

    def check_dispatcher(self, name: str) -> None:
        """Check that a plugin knows a dispatcher's name.

        Raises:
            ConfigurationError: No plugin does.
        """
        self.plugins.dispatcher_factory(name)

    def reverse(self, view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the URL of a web framework's view, absolute if the base URL is known.

        Args:
            view: The view's name in the framework.
            args: Its positional arguments.
            kwargs: Its named arguments.

        Raises:
            ConfigurationError: No plugin knows the view.
        """
        return self.absolute_url(self.plugins.reverse(view, args, kwargs))

    def absolute_url(self, url: str) -> str:
        """Make a path absolute: by the setting `base_url`, else by a web adapter's base URL.

        Args:
            url: A path. It is returned unchanged if there is no base URL; so is a complete URL.

        Example:
            >>> with Thorn(settings=Settings(base_url="https://example.com")) as app:
            ...     app.absolute_url("/articles/1/")
            'https://example.com/articles/1/'
        """
        if not url.startswith("/") or url.startswith("//"):
            return url
        base = self.settings.base_url or self.plugins.base_url()
        return url if base is None else base.rstrip("/") + url

    # -- for workers

    def _options(self, message: Message) -> EventOptions:
        event = find_event(message.declared or message.event, self)
        if event is None:
            return NO_OPTIONS
        if event.options.validators is None:
            return event.options
        return self._completed(event)

    def _completed(self, event: Event) -> EventOptions:
        """Complete an event's options: apply `allowed_networks` to its own validators.

        Returns the same object each time, because transports pool connections by the validators'
        identity.
        """
        options = event.options
        assert options.validators is not None
        known = self._event_options.get(id(options))
        if known is None or known[0] is not options:
            validators = complete_validators(
                options.validators, allowed_networks=self.settings.allowed_networks
            )
            known = (options, attrs.evolve(options, validators=validators))
            self._event_options[id(options)] = known
            log_findings(check_event(event, self.settings))
        return known[1]

    def _unstored(self, message: Message) -> Unstored:
        event = find_event(message.declared or message.event, self)
        targets = self._static.targets(message.event)
        if event is not None and event.static_subscribers is not None:
            targets.append((event.name, event.static_subscribers))
        if not targets and not self.plugins.asks_subscriptions:
            return NOBODY
        with self.plugins.calling():
            added, failures = self.plugins.subscriptions(message)
            return unstored_recipients(self.rules, message, targets, added, failures)

    def _knows(self, message: Message) -> bool:
        """Return whether this process has the declaration that a message needs."""
        return message.declared is None or find_event(message.declared, self) is not None

    def count_unsent(self, event: str) -> None:
        """Count an event that could not be sent, for `stats`.

        Args:
            event: Its name, as declared.
        """
        with self._lock:
            self._unsent[event] += 1

    def _progressed(self) -> None:
        # Not cached, because a forked child has another one.
        self._progress.made()

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition on the store holds, which workers in any process fulfil.

        Args:
            done: Returns whether the condition holds.
            timeout: Seconds; None for no limit.

        Returns:
            False after a time-out.

        Raises:
            ConfigurationError: It was called inside a running event loop, which it would block.
        """
        return self._progress.wait_until(done, timeout)

    async def await_until(self, done: Callable[[], bool]) -> None:
        """Like `wait_until`, without blocking the event loop.

        Args:
            done: Returns whether the condition holds; called in a thread that may use the store.
        """
        await self._progress.await_until(partial(self.await_call, done))

    async def await_call(self, function: Callable[[], T]) -> T:
        """Call a function that uses the store, without blocking the caller's loop.

        Args:
            function: Called in the thread in which async code uses the store.
        """
        return await self._sending.call(function)

    def events(self) -> list[Event]:
        """Return all events declared for this app or for any app, by name.

        Raises:
            ConfigurationError: A module of the setting `imports` can't be imported.
        """
        self.import_events()
        return declared_events(self)


# Events see the port of an app; programs get a Thorn.
get_app = cast("Callable[[], Thorn]", current_app.get_app)
