"""The plugin manager: collects plugins' additions and calls their hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import getattr_static, isclass
from typing import Any, cast

import pluggy

from thorn_core import codecs, hookspecs, signatures
from thorn_core.answers import (
    check_codec,
    check_content_type,
    check_factory,
    check_mapping,
    check_plugins,
    lacks,
    made,
    near,
)
from thorn_core.callables import is_async
from thorn_core.codecs import Codec, Decoder
from thorn_core.errors import ConfigurationError, SecurityError, ThornError, UncheckedError
from thorn_core.ports.app import App
from thorn_core.ports.dispatcher import Dispatcher
from thorn_core.ports.store import Store
from thorn_core.ports.transport import Transport
from thorn_core.ports.unit_of_work import IMMEDIATE, UnitOfWork
from thorn_core.recipients.urls import shown
from thorn_core.settings import Settings
from thorn_core.signatures import SignatureScheme
from thorn_core.stores.memory import MemoryStore
from thorn_core.transports import best_transport
from thorn_core.values import Attempt, Delivery, Message, Request, Subscription

logger = logging.getLogger(__name__)

# No suggestion of a similar name for these: `mssql` doesn't misspell `mysql`.
OTHER_DATABASES = ("cockroachdb", "mssql", "oracle")

NOTHING = nullcontext()


def _check_scheme(name: str, scheme: Any, where: str) -> None:
    # A scheme that can only sign is enough for senders.
    if isclass(scheme) or not callable(getattr(scheme, "sign", None)):
        raise ConfigurationError(
            f"{where} returned {scheme!r} for {name!r}; return an object with the methods of"
            f" thorn_core.signatures.SignatureScheme"
        )


HOOKS = tuple(name for name in dir(hookspecs) if name.startswith("thorn_"))
# Checks each name and value in the mapping that a hook returns.
ANSWERS: Mapping[str, Callable[[str, Any, str], None]] = {
    "thorn_codecs": check_codec,
    "thorn_decoders": check_content_type,
    "thorn_dispatchers": check_factory,
    "thorn_signature_schemes": _check_scheme,
    "thorn_stores": check_factory,
}


def _sqlite_store(url: str, settings: Settings) -> Store:
    # Load its modules only for apps that use it.
    from thorn_core.stores.sql import sqlite_store

    return sqlite_store(url)


class BuiltinPorts:
    """Thorn's own stores, transports, codecs and schemes, as a plugin."""

    @hookspecs.hookimpl
    def thorn_stores(self) -> Mapping[str, Callable[[str, Settings], Store]]:
        """Return the memory store, and the SQL store for SQLite databases."""
        return {
            "memory": lambda url, settings: MemoryStore(history=settings.history),
            "sqlite": _sqlite_store,
        }

    @hookspecs.hookimpl(trylast=True)
    def thorn_transport(self, settings: Settings) -> Transport:
        """Return the fast transport if httptools is installed, otherwise the httpx transport."""
        return best_transport(max_connections=settings.concurrency)

    @hookspecs.hookimpl
    def thorn_codecs(self) -> Mapping[str, Codec]:
        """Return the JSON and form codecs."""
        return codecs.CODECS

    @hookspecs.hookimpl
    def thorn_decoders(self) -> Mapping[str, Decoder]:
        """Return the JSON and form decoders."""
        return codecs.DECODERS

    @hookspecs.hookimpl
    def thorn_signature_schemes(self) -> Mapping[str, SignatureScheme]:
        """Return Standard Webhooks, Hook-HMAC, GitHub and Stripe."""
        return signatures.SCHEMES


class Plugins:
    """The plugins of one app: built-in, installed and given.

    Args:
        given: Objects or modules with hook implementations.
        builtin: Thorn's own plugins.
        discover: Load the entry points of the group `thorn`.

    Raises:
        ConfigurationError: An entry point can't be loaded, or a plugin has a hook that doesn't
            exist.
    """

    def __init__(
        self, given: Iterable[Any] = (), *, builtin: Iterable[Any] = (), discover: bool = True
    ) -> None:
        # A name refers to the transaction that is open when the name is used.
        self._named_units: dict[str, UnitOfWork] = {}
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        for plugin in (BuiltinPorts(), *builtin):
            self.manager.register(plugin)
        if discover:
            try:
                self.manager.load_setuptools_entrypoints(hookspecs.PROJECT)
            except Exception as error:
                raise ConfigurationError(
                    f"an installed plugin (entry point group 'thorn') can't be loaded: {error};"
                    f" fix or uninstall it"
                ) from error
        for plugin in check_plugins(given):
            if self.manager.is_registered(plugin):
                raise ConfigurationError(f"plugin {plugin!r} is registered twice; register it once")
            try:
                self.manager.register(plugin)
            except (ValueError, pluggy.PluginValidationError) as error:
                raise ConfigurationError(f"plugin {plugin!r} can't be used: {error}") from error
        for plugin in self.manager.get_plugins():
            self._check_hooks(plugin)
        self.hook = self.manager.hook
        # Most apps have none of these, and even empty hook calls cost time.
        self.asks_accepts = bool(self.hook.thorn_accepts.get_hookimpls())
        self.asks_validate = bool(self.hook.thorn_validate_recipient.get_hookimpls())
        self.asks_subscriptions = bool(self.hook.thorn_subscriptions.get_hookimpls())
        # Thorn's own plugin has this hook, too.
        self.replaces_transport = len(self.hook.thorn_transport.get_hookimpls()) > 1
        self._asks_calling = bool(self.hook.thorn_calling.get_hookimpls())
        self.asks_attempted = bool(self.hook.thorn_attempted.get_hookimpls())
        # pluggy calls the latest registered first; a chain runs in that order too.
        self._preparers = tuple(reversed(self.hook.thorn_prepare_request.get_hookimpls()))

    def _check_hooks(self, plugin: Any) -> None:
        """Check that a plugin has hooks, that they exist, and that none is a coroutine function.

        Raises:
            ConfigurationError: It has no hooks, an unknown hook, or a coroutine function.
        """
        callers = self.manager.get_hookcallers(plugin) or ()
        hooks = [caller.name for caller in callers]
        for name in hooks:
            if name not in HOOKS:
                raise ConfigurationError(
                    f"plugin {plugin!r} has an unknown hook {name}; {near(name, HOOKS)}"
                )
        for caller in callers:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin and is_async(implementation.function):
                    raise ConfigurationError(
                        f"plugin {plugin!r} has {caller.name} as a coroutine function, and hooks"
                        " aren't awaited; make it a plain function"
                    )
        unmarked = [n for n in HOOKS if n not in hooks and getattr_static(plugin, n, None)]
        if unmarked:
            raise ConfigurationError(
                f"plugin {plugin!r} has {', '.join(unmarked)} without @hookimpl, so it would never"
                f" be called; add the decorator"
            )
        if not hooks:
            raise ConfigurationError(
                f"plugin {plugin!r} has no hooks, so it would do nothing; name its functions as in"
                f" thorn_core.hookspecs, and decorate them with @hookimpl"
            )

    def gather(self, hook: str) -> dict[str, Any]:
        """Merge the mappings that plugins return from a hook; the last one registered wins.

        Raises:
            ConfigurationError: A plugin fails, or returns an unusable value.
        """
        merged: dict[str, Any] = {}
        for implementation in getattr(self.hook, hook).get_hookimpls():
            where = f"{hook} of {implementation.plugin!r}"
            try:
                answer = implementation.function()
            except ThornError:
                raise
            except Exception as error:
                raise ConfigurationError(f"{where} failed: {error}") from error
            if answer is not None:
                check_mapping(answer, where, ANSWERS[hook])
                merged.update(answer)
        return merged

    def store(self, source: Any, settings: Settings) -> Store:
        """Create the store for a URL, or for an object that has one, such as an SQLAlchemy Engine.

        Raises:
            ConfigurationError: No plugin knows the URL's scheme, or the result isn't a store.
        """
        factories = self.gather("thorn_stores")
        url = source if isinstance(source, str) else getattr(source, "url", None)
        if url is None:
            lacking = lacks(source, Store)
            hint = f"; it lacks {', '.join(lacking)}" if len(lacking) < 5 else ""
            raise ConfigurationError(
                f"store={source!r} is neither a store nor a store URL, such as 'memory://'{hint}"
            )
        scheme = str(url).partition(":")[0]
        factory = factories.get(scheme) or factories.get(scheme.partition("+")[0])
        if factory is None:
            raise ConfigurationError(
                f"no store for {scheme!r}; {_store_advice(str(url), scheme, factories)}"
            )
        store = made(factory(source, settings), Store, f"the factory of the store {scheme!r}")
        return cast("Store", store)

    def dispatcher(self, name: str, app: App) -> Dispatcher:
        """Create the dispatcher with a name.

        Raises:
            ConfigurationError: No plugin knows the name.
        """
        return self.dispatcher_factory(name)(app)

    def dispatcher_factory(self, name: str) -> Callable[[App], Dispatcher]:
        """Return the factory of the dispatcher with a name.

        Raises:
            ConfigurationError: No plugin knows the name.
        """
        factories = self.gather("thorn_dispatchers")
        if name not in factories:
            raise ConfigurationError(
                f"no dispatcher {name!r}; {near(name, factories)}"
                " (for celery, install thorn-celery)"
            )
        return cast("Callable[[App], Dispatcher]", factories[name])

    def transport(self, settings: Settings) -> Transport:
        """Create the transport, on the event loop that will use it.

        Raises:
            ConfigurationError: A plugin's result isn't a transport.
        """
        transport = self.hook.thorn_transport(settings=settings)
        return cast("Transport", made(transport, Transport, "thorn_transport"))

    def unit_of_work(self, handle: Any) -> UnitOfWork:
        """Return the unit of work for a transaction handle; the immediate one for None.

        Raises:
            ConfigurationError: No plugin knows the handle, or the result isn't a unit of work.
        """
        if handle is None:
            return IMMEDIATE
        named = self._named_units.get(handle) if isinstance(handle, str) else None
        if named is not None:
            return named
        unit = self.hook.thorn_unit_of_work(handle=handle)
        if unit is not None:
            if not isinstance(unit, UnitOfWork):
                made(unit, UnitOfWork, f"thorn_unit_of_work of {handle!r}")
            if isinstance(handle, str):
                self._named_units[handle] = unit
            return cast("UnitOfWork", unit)
        if isinstance(handle, UnitOfWork):
            return handle
        raise ConfigurationError(
            f"within={handle!r} is not a transaction handle of an installed adapter;"
            " thorn-sqlalchemy takes a Session or Connection, thorn-django a database alias"
        )

    def calling(self) -> AbstractContextManager[object]:
        """Return the context manager to enter around calls of the program's own code."""
        return (self._asks_calling and self.hook.thorn_calling()) or NOTHING

    def subscriptions(self, message: Message) -> tuple[list[Any], list[Exception]]:
        """Return the recipients that plugins add to a message, and the errors of failed plugins."""
        found: list[Any] = []
        failures: list[Exception] = []
        for implementation in reversed(self.hook.thorn_subscriptions.get_hookimpls()):
            offered = {"message": message}
            try:
                given: Any = implementation.function(*(offered[n] for n in implementation.argnames))
                found += given or ()
            except Exception as failure:
                failures.append(failure)
        return found, failures

    def accepts(self, message: Message, subscription: Subscription) -> bool:
        """Return False if a plugin excludes the recipient."""
        if not self.asks_accepts:
            return True
        with self.calling():
            answers = self.hook.thorn_accepts(message=message, subscription=subscription)
        return False not in answers

    def validate_recipient(self, url: str) -> None:
        """Ask plugins whether requests to a recipient are allowed.

        Raises:
            SecurityError: A plugin refuses it.
            UncheckedError: A plugin fails; an unchecked recipient isn't safe.
        """
        if not self.asks_validate:
            return
        try:
            with self.calling():
                answers = self.hook.thorn_validate_recipient(url=url)
            if False in answers:
                raise SecurityError(
                    f"The recipient URL {shown(url)} is refused; use another recipient."
                )
        except SecurityError:
            raise
        except Exception as error:
            # The subscriber may read this, and the error may contain internal addresses.
            logger.exception("a plugin failed to validate %s", shown(url))
            raise UncheckedError(
                f"a plugin failed to validate {shown(url)}, so the URL is refused; see the log"
            ) from error

    def prepare_request(self, request: Request, delivery: Delivery) -> Request:
        """Let each plugin change the request in turn."""
        if not self._preparers:
            return request
        with self.calling():
            for preparer in self._preparers:
                offered: dict[str, Any] = {"request": request, "delivery": delivery}
                arguments = [offered[name] for name in preparer.argnames]
                request = cast("Request | None", preparer.function(*arguments)) or request
        return request

    def attempted(self, attempt: Attempt, delivery: Delivery) -> None:
        """Notify the plugins of an attempt; log their errors."""
        if not self.asks_attempted:
            return
        try:
            with self.calling():
                self.hook.thorn_attempted(attempt=attempt, delivery=delivery)
        except Exception:
            logger.exception("a plugin failed in thorn_attempted")

    def reverse(self, view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the URL of a view.

        Raises:
            ConfigurationError: No plugin knows it.
        """
        url = self.hook.thorn_reverse(view=view, args=args, kwargs=kwargs)
        if url is None:
            raise ConfigurationError(
                f"no URL for view {view!r}; install a web adapter (thorn-django, thorn-flask)"
                " or a plugin with thorn_reverse"
            )
        return cast("str", url)

    def base_url(self) -> str | None:
        """Return the base URL of paths, if a plugin knows it."""
        return cast("str | None", self.hook.thorn_base_url())


def _store_advice(url: str, scheme: str, factories: Mapping[str, Any]) -> str:
    if "://" not in url:
        # Anything with a colon or an @ may contain a password.
        path = "thorn.db" if ":" in url or "@" in url else url
        return f"for a SQLite file, write sqlite:///{path}"
    if scheme.partition("+")[0] in OTHER_DATABASES:
        advice = f"available: {', '.join(sorted(factories))}"
    else:
        advice = near(scheme, factories)
    if "postgresql" not in factories:
        advice += " (for PostgreSQL, MySQL and MariaDB, install thorn-sqlalchemy)"
    return advice
