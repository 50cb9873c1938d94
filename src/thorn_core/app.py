"""Thorn: settings, plugins, store and dispatcher, wired."""

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

# Seconds that a fork waits for the engine; a call of a store is over long before.
FORK_PATIENCE = 5.0
NO_OPTIONS = EventOptions()


def utc_now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


class Thorn(SendingCalls, SubscriptionCalls, HistoryCalls):
    """An app: what declares, keeps and delivers events. The first one made is the default.

    Args:
        store: A store, the URL of one (`memory://`), or an object that has such a URL (an Engine).
        dispatcher: Name of the dispatcher, in place of the setting.
        settings: Every other choice.
        plugins: Objects or modules with hook implementations, beside the installed ones.
        transport: Makes the transport, in place of the plugins' choice; called on the event loop
            that uses it.
        clock: The time, aware UTC.
        default: Become the default app if there is none.

    Raises:
        ConfigurationError: A plugin, the store's URL, the dispatcher, a signature scheme or a
            static subscriber isn't right.

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
        # Events that were declared for this app, which it keeps.
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
        """In a process about to fork: hold the engine, and let go of what no child may inherit.

        Waits for the engine's callback and calls of the store that are under way, 5 s at most. A
        worker on an event loop of the caller's isn't held.
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
        """In a process that has forked: let the engine go on."""
        self._thread.release()

    def after_fork(self) -> Any:
        """In a forked child: begin anew; returns what it inherited and mustn't touch."""
        inherited = (self._thread, self._engine, self._sending)
        self._begin()
        self.store.after_fork()
        return inherited

    def _begin(self) -> None:
        """Set up what belongs to one process: made again in a forked child."""
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
        make_keys(schemes)  # raises now if they can't: no common key, a package that is missing
        return schemes

    # -- life

    def make_default(self) -> Self:
        """Make this the default app, the one that events without an app of their own use."""
        set_default_app(self)
        return self

    def close(self) -> None:
        """Stop everything, letting requests under way end within the grace period.

        Deliveries not made stay pending in the store. Calling it twice is fine; interpreter exit
        calls it too.
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
        """The worker on the engine's loop, that dispatchers share."""
        with self._lock:
            if self._engine is None:
                self._engine = self.worker()
            return self._engine

    def worker(self, *, concurrency: int | None = None) -> Worker:
        """Make a worker on this app's store: `worker.run()`, or `await worker.arun()`.

        Args:
            concurrency: Requests under way at once, in place of the setting.

        Raises:
            ConfigurationError: The concurrency isn't one.
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

        A worker needs the declarations of events that have subscribers, validators or keep-alive
        of their own. It calls this when it is made, for the modules of the setting `imports` and
        those that adapters know (Django: `events` and `webhooks` of every installed app).

        Args:
            *modules: Dotted names of more modules.

        Raises:
            ConfigurationError: One can't be found.

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
        """Make a transport of yours or of a plugin's on the engine's loop, and close it again.

        Raises:
            ConfigurationError: It can't be made, or is no transport.
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
        """The dispatcher of a name, made at first use; the app's own for None.

        Raises:
            ConfigurationError: No plugin knows the name.
        """
        return self._sending.dispatcher(name)

    def dispatching_by(self, dispatcher: Dispatcher) -> AbstractContextManager[None]:
        """Use this dispatcher for everything inside the block, whatever events say; for tests."""
        return self._sending.substituted(dispatcher)

    def model_adapter(self, model: type) -> ModelAdapter:
        """The ORM adapter for a class."""
        return self._model_adapters.of(model)

    def check_dispatcher(self, name: str) -> None:
        """See that a plugin knows the dispatcher of a name.

        Raises:
            ConfigurationError: None does.
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
        """A path made a URL: by the setting `base_url`, else by what a web adapter knows.

        Args:
            url: A path; what isn't one is given back as it is, as is one if neither is there.

        Example:
            >>> with Thorn(settings=Settings(base_url="https://example.com")) as app:
            ...     app.absolute_url("/articles/1/")
            'https://example.com/articles/1/'
        """
        if not url.startswith("/") or url.startswith("//"):
            return url
        base = self.settings.base_url or self.plugins.base_url()
        return url if base is None else base.rstrip("/") + url

    # -- what workers ask

    def _options(self, message: Message) -> EventOptions:
        event = find_event(message.declared or message.event, self)
        if event is None:
            return NO_OPTIONS
        if event.options.validators is None:
            return event.options
        return self._completed(event)

    def _completed(self, event: Event) -> EventOptions:
        """An event's options with its own validators in force: `allowed_networks` hold for them.

        The same value each time: transports keep connections by the identity of the validators.
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
        """Whether the declaration that a message needs is known here."""
        return message.declared is None or find_event(message.declared, self) is not None

    def count_unsent(self, event: str) -> None:
        """Count an event that could not be sent, for `stats`.

        Args:
            event: Its name, as declared.
        """
        with self._lock:
            self._unsent[event] += 1

    def _progressed(self) -> None:
        # Looked up each time: a forked child has another one.
        self._progress.made()

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a worker, here or elsewhere, has done something.

        Args:
            done: Looks whether it has.
            timeout: Seconds; None waits as long as it takes.

        Returns:
            False if the time was up.

        Raises:
            ConfigurationError: It was called inside a running event loop, which it would stop.
        """
        return self._progress.wait_until(done, timeout)

    async def await_until(self, done: Callable[[], bool]) -> None:
        """Wait until a worker, here or elsewhere, has done something, without blocking the loop.

        Args:
            done: Looks whether it has; called where the store may be used.
        """
        await self._progress.await_until(partial(self.await_call, done))

    async def await_call(self, function: Callable[[], T]) -> T:
        """Call a function that uses the store, without blocking the caller's loop.

        Args:
            function: Called in the thread that the store is used in from async code.
        """
        return await self._sending.call(function)

    def events(self) -> list[Event]:
        """Every event declared for this app or for any, by name.

        Raises:
            ConfigurationError: A module of the setting `imports` can't be imported.
        """
        self.import_events()
        return declared_events(self)


# Events know an app by its port; programs get a Thorn.
get_app = cast("Callable[[], Thorn]", current_app.get_app)
