"""Thorn: settings, plugins, store and dispatcher, wired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Self, TypeVar

import attrs

from thorn_core.current_app import forget_default_app, set_default_app
from thorn_core.dispatchers import BuiltinDispatchers, Dispatcher
from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.events import Event, declared_events, event_for, find_event
from thorn_core.history import purge_deliveries, replay_deliveries
from thorn_core.models import ModelAdapter, ModelAdapters, PlainModelAdapter, watch_models
from thorn_core.plugins import Plugins
from thorn_core.process import keep
from thorn_core.progress import Progress
from thorn_core.receipts import Callbacks, Receipt
from thorn_core.sending import Sending
from thorn_core.settings import Settings
from thorn_core.stores.base import Store, delivery_query
from thorn_core.subscriptions import (
    StaticSubscribers,
    SubscriptionRules,
    change_secret,
    change_subscription,
    identify,
    make_subscription,
    static_subscriptions,
)
from thorn_core.transports.base import Transport
from thorn_core.values import Attempt, Delivery, Message, Stats, Subscription
from thorn_core.worker import EventOptions, LoopThread, Wiring, Worker

T = TypeVar("T")

PAGE = 500
NO_OPTIONS = EventOptions()


def utc_now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


class Thorn:
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
        >>> from thorn_core.recipients import allow_cidr_network
        >>> settings = Settings(recipient_validators=[allow_cidr_network("127.0.0.0/8")])
        >>> with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        ...     subscription = app.subscribe("article.*", recipient.url)
        ...     bool(app.send("article.created", {"title": "Hello"}))
        True
    """

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
        self.settings = settings or Settings()
        self.clock = clock
        self.plugins = Plugins(plugins, builtin=(BuiltinDispatchers(), PlainModelAdapter()))
        self._model_adapters = ModelAdapters(self.plugins.hook.thorn_model_adapter)
        self.codecs = {**self.plugins.gather("thorn_codecs"), **self.settings.codecs}
        self.rules = SubscriptionRules(
            settings=self.settings,
            content_types=tuple(self.codecs),
            validate=self.plugins.validate_recipient,
        )
        self._schemes = self._chosen_schemes()
        self._static = StaticSubscribers(self.rules)
        self._make_transport = transport
        self._dispatcher_name = dispatcher or self.settings.dispatcher
        self.store: Store = (
            store if isinstance(store, Store) else self.plugins.store(store, self.settings)
        )
        self._closed = False
        self._begin()
        self.dispatcher()
        keep(self)
        watch_models(self)
        if default:
            set_default_app(self, only_if_none=True)

    def __repr__(self) -> str:
        return f"<Thorn {type(self.store).__name__} {self._dispatcher_name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def after_fork(self) -> Any:
        """In a forked child: begin anew; returns what it inherited and mustn't touch."""
        inherited = (self._thread, self._engine, self._sending)
        self._begin()
        self.store.after_fork()
        return inherited

    def _begin(self) -> None:
        """Set up what belongs to one process: made again in a forked child."""
        self._lock = threading.RLock()
        self._progress = Progress()
        self._sending = Sending(self, self._dispatcher_name)
        self._thread = LoopThread("thorn-engine")
        self._engine: Worker | None = None

    def _chosen_schemes(self) -> tuple[Any, ...]:
        known = self.plugins.gather("thorn_signature_schemes")
        for name in self.settings.signatures:
            if name not in known:
                raise ConfigurationError(
                    f"setting signatures names {name!r}; known are {', '.join(sorted(known))}"
                )
        return tuple(known[name] for name in self.settings.signatures)

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
                schemes=self._schemes,
                policy=settings.effective_retry_policy,
                clock=self.clock,
                make_transport=self._make_transport or partial(self.plugins.transport, settings),
                options=self._options,
                unstored=self._unstored,
                attempted=self._sending.attempted,
                progressed=self._progressed,
            ),
            self._thread,
        )

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

    # -- subscriptions

    def subscribe(
        self,
        events: str | Iterable[str],
        url: str,
        *,
        owner: Any = None,
        secret: str | None = None,
        content_type: str = "application/json",
        hmac_digest: str = "sha256",
        headers: Mapping[str, str] | None = None,
        description: str = "",
        rate_limit: float | None = None,
    ) -> Subscription:
        """Subscribe a URL to events.

        Args:
            events: A pattern or several: `article.*`.
            url: Where requests go.
            owner: Whose it is: an id, or an object with a `pk` or `id`; None is an operator's.
            secret: Signs its requests; None mints one (`.secret`).
            content_type: How bodies are encoded.
            hmac_digest: Of the `Hook-HMAC` header: `sha256`, `sha512` or `sha1`.
            headers: Extra headers for its requests.
            description: For people.
            rate_limit: Requests a second at most.

        Raises:
            InvalidNameError: A pattern isn't one.
            SecurityError: The URL is refused by a recipient validator.
            ConfigurationError: Something else isn't allowed.
        """
        subscription = make_subscription(
            self.rules,
            events,
            url,
            at=self.clock(),
            owner=owner,
            secret=secret,
            content_type=content_type,
            hmac_digest=hmac_digest,
            headers=headers or {},
            description=description,
            rate_limit=rate_limit,
        )
        self.store.add_subscription(subscription)
        return subscription

    def update_subscription(self, subscription_id: str, **changes: Any) -> Subscription:
        """Change a subscription.

        Args:
            subscription_id: Which.
            **changes: `events`, `url`, `enabled`, `disabled_reason`, `content_type`,
                `hmac_digest`, `headers`, `description`, `rate_limit`.

        Raises:
            NotFoundError: There is none.
            InvalidNameError, SecurityError, ConfigurationError: A change isn't allowed.
        """
        changed = change_subscription(
            self.rules, self._required(subscription_id), at=self.clock(), **changes
        )
        self.store.save_subscription(changed)
        return changed

    def rotate_secret(self, subscription_id: str, secret: str | None = None) -> Subscription:
        """Give a subscription a new secret; the old ones go on signing for `secret_overlap`.

        Args:
            subscription_id: Which.
            secret: The new secret; None mints one.

        Raises:
            NotFoundError: There is none.
            ConfigurationError: The secret isn't one.
        """
        rotated = change_secret(
            self._required(subscription_id),
            secret,
            at=self.clock(),
            overlap=timedelta(seconds=self.settings.secret_overlap),
        )
        self.store.save_subscription(rotated)
        return rotated

    def unsubscribe(self, subscription_id: str) -> bool:
        """Remove a subscription; what is pending for it is discarded. False if there is none."""
        return self.store.remove_subscription(subscription_id)

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of that id."""
        return self.store.subscription(subscription_id)

    def subscriptions(self, *, owner: Any = None) -> Iterator[Subscription]:
        """All subscriptions, or those of an owner, by age."""
        name = None if owner is None else identify(owner)[0]
        fetch = partial(self.store.subscriptions, owner=name, limit=PAGE)
        return _paged(lambda after: fetch(after=after))

    def subscribers(self, event: str, *, sender: Any = None) -> Iterator[Subscription]:
        """The subscriptions, static and stored, that a message of this event would reach now.

        Those that plugins and callables add are known only when there is a message.
        """
        yield from self._static.reached(event)
        declared = find_event(event, self)
        if declared is not None:
            targets = declared.static_subscribers
            yield from static_subscriptions(self.rules, event, targets)
        name = None if sender is None else identify(sender)[0]
        fetch = partial(self.store.matching, event, sender=name, limit=PAGE)
        yield from _paged(lambda after: fetch(after=after))

    def _required(self, subscription_id: str) -> Subscription:
        subscription = self.store.subscription(subscription_id)
        if subscription is None:
            raise NotFoundError(f"there is no subscription {subscription_id!r}")
        return subscription

    # -- sending

    def send(
        self, event: str | Event, data: Any = None, *, sender: Any = None, **options: Any
    ) -> Receipt:
        """Send a message of an event, declared or not.

        Args:
            event: The event or its name.
            data: The payload.
            sender: The user or tenant it is about, or its id.
            **options: Those of `Event.send`.

        Raises:
            InvalidNameError: The name isn't one.
            PayloadError: The payload can't be encoded, is too large, or breaks the schema.
        """
        return self._event(event).send(data, sender=sender, **options)

    async def asend(
        self, event: str | Event, data: Any = None, *, sender: Any = None, **options: Any
    ) -> Receipt:
        """Send a message without blocking the caller's loop; else as `send`."""
        return await self._event(event).asend(data, sender=sender, **options)

    def send_test(self, subscription_id: str) -> Receipt:
        """Send a `thorn.test` message to one subscription, and to no other.

        Raises:
            NotFoundError: There is none.
        """
        subscription = self._required(subscription_id)
        event = self._event("thorn.test")
        data = {"subscription": subscription.id, "events": subscription.events}
        message, _ = event._compose(self, event.name, data)
        self.send_message(attrs.evolve(message, only=subscription.id))
        return Receipt(self, message)

    def _event(self, event: str | Event) -> Event:
        return event if isinstance(event, Event) else event_for(event, self)

    def send_message(
        self,
        message: Message,
        *,
        within: Any = None,
        dispatcher: str | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Let a message go its way: into the open buffer, or the store and on to the dispatcher.

        Args:
            message: The message.
            within: The transaction handle of an adapter.
            dispatcher: Name of one, in place of the app's.
            callbacks: Whom to call back after its attempts.
        """
        self._sending.send(message, within, dispatcher, callbacks)

    async def asend_message(
        self,
        message: Message,
        *,
        within: Any = None,
        dispatcher: str | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Let a message go its way without blocking the caller's loop; else as `send_message`."""
        await self._sending.asend(message, within, dispatcher, callbacks)

    # -- what workers ask

    def _options(self, message: Message) -> EventOptions:
        event = find_event(message.declared or message.event, self)
        return NO_OPTIONS if event is None else event.options

    def _unstored(self, message: Message) -> Sequence[Subscription]:
        event = find_event(message.declared or message.event, self)
        if (
            not self.settings.subscribers
            and (event is None or event.static_subscribers is None)
            and not self.plugins.asks_subscriptions
        ):
            return ()
        with self.plugins.calling():
            found = list(self._static.reached(message.event, message))
            if event is not None and event.static_subscribers is not None:
                targets = event.static_subscribers
                found += static_subscriptions(self.rules, event.name, targets, message)
            found += self.plugins.subscriptions(message)
        return list({subscription.id: subscription for subscription in found}.values())

    def _progressed(self) -> None:
        # Looked up each time: a forked child has another one.
        self._progress.made()

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done by a worker, here or elsewhere.

        Args:
            done: Looks whether it is.
            timeout: Seconds; None waits as long as it takes.

        Returns:
            False if the time was up.
        """
        return self._progress.wait_until(done, timeout)

    # -- history

    def message(self, message_id: str) -> Message | None:
        """The message of that id."""
        return self.store.message(message_id)

    def messages_to_route(self) -> Sequence[Message]:
        """Lease and return messages that wait to be routed; for tests and inspection."""
        return self.store.claim_messages(now=self.clock(), lease=timedelta(), limit=PAGE)

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        return self.store.delivery(delivery_id)

    def deliveries(
        self,
        *,
        message_id: str | None = None,
        subscription_id: str | None = None,
        event: str | None = None,
        state: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Delivery]:
        """Deliveries, by age; every criterion given must hold.

        Args:
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            state: In this state or one of these.
            since: Created at or after this time.
            until: Created before this time.

        Raises:
            ConfigurationError, InvalidNameError: A criterion isn't one.
        """
        query = delivery_query(message_id, subscription_id, event, state, since, until)
        fetch = partial(self.store.deliveries, query, limit=PAGE)
        return _paged(lambda after: fetch(after=after), attrgetter("place"))

    def attempts(self, delivery_id: str | Iterable[str]) -> Iterator[Attempt]:
        """The attempts of a delivery or of several, by age."""
        ids = [delivery_id] if isinstance(delivery_id, str) else list(delivery_id)
        return _paged(lambda after: self.store.attempts(ids, after=after, limit=PAGE))

    def replay(
        self,
        delivery_id: str | Iterable[str] | None = None,
        *,
        message_id: str | None = None,
        subscription_id: str | None = None,
        event: str | None = None,
        state: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Deliver once more: one delivery, several, or all that meet the criteria.

        Works through them by the page: there may be millions.

        Args:
            delivery_id: Which; the other criteria narrow it.
            message_id: Of this message.
            subscription_id: To this subscription.
            event: Of events that match this pattern.
            state: In this state or one of these; without it and without ids, those that failed
                (`exhausted` and `discarded`).
            since: Created at or after this time.
            until: Created before this time.
            progress: Called after each page with how many that makes.

        Returns:
            How many are pending again.

        Raises:
            ConfigurationError: No criterion is given, or one isn't one.
        """
        query = delivery_query(message_id, subscription_id, event, state, since, until)
        if delivery_id is not None:
            ids = (delivery_id,) if isinstance(delivery_id, str) else tuple(delivery_id)
            query = attrs.evolve(query, ids=ids)
        return replay_deliveries(
            self.store,
            query,
            now=self.clock(),
            size=PAGE,
            dispatcher=self.dispatcher(),
            progress=progress,
        )

    def purge(
        self,
        *,
        until: datetime,
        state: str | Iterable[str] | None = None,
        event: str | None = None,
        subscription_id: str | None = None,
        batch: int = PAGE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Remove settled deliveries of before a time with their attempts, and their messages.

        What is pending or in flight stays, and so does a message while it has deliveries. Without
        other criteria, older messages that reached nobody go as well.

        Args:
            until: Created before this time.
            state: In this final state or one of these; without it, in any.
            event: Of events that match this pattern.
            subscription_id: To this subscription.
            batch: Deliveries removed at once, in a transaction of their own; 1 to 10,000.
            progress: Called after each batch with how many that makes.

        Returns:
            How many deliveries went.

        Raises:
            ConfigurationError, InvalidNameError: A criterion isn't one.

        Example:
            >>> with Thorn(dispatcher="outbox") as app:
            ...     receipt = app.send("article.created", {"title": "Hello"})
            ...     app.purge(until=app.clock() - timedelta(days=30))
            0
        """
        return purge_deliveries(
            self.store,
            until=until,
            state=state,
            event=event,
            subscription_id=subscription_id,
            batch=batch,
            progress=progress,
        )

    def stats(self, *, window: timedelta = timedelta(hours=1)) -> Stats:
        """What the store holds, and how attempts went lately.

        Args:
            window: What the figures of attempts speak of.
        """
        return self.store.stats(now=self.clock(), window=window)

    def events(self) -> list[Event]:
        """Every event declared for this app or for any, by name."""
        return declared_events(self)


Item = TypeVar("Item", Subscription, Delivery, Attempt)


def _paged(
    fetch: Callable[[Any], Sequence[Item]], place: Callable[[Item], Any] = attrgetter("id")
) -> Iterator[Item]:
    after = None
    while page := fetch(after):
        yield from page
        if len(page) < PAGE:
            return
        after = place(page[-1])
