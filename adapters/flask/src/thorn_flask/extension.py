"""The extension, which creates a Thorn for each Flask app from its configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from flask import Flask, current_app, has_app_context
from werkzeug.local import LocalProxy

from thorn_core import ConfigurationError, Settings, Store, Thorn, find_app_by
from thorn_flask.cli import ThornCommands
from thorn_flask.plugin import FlaskPlugin

KEY = "thorn"
STORE = "THORN_STORE"


class ThornFlask:
    """Creates a Thorn for each Flask app, `app.extensions["thorn"]`, from its config `THORN_…`.

    In the context of a Flask app, its Thorn sends events without an app of their own. Outside,
    there is no current Thorn, unless `Thorn.make_default` has made one the default.

    Args:
        app: A Flask app to initialise; `init_app` initialises others.
        store: Used if the config has no `THORN_STORE`: a store, its URL, or a function that returns
            one in the app's context, such as `lambda: SqlStore(db.engine)`. None uses the memory
            store.
        plugins: As for `Thorn`.

    Example:
        >>> from flask import Flask
        >>> from thorn_core import Event
        >>> webhooks, order_paid = ThornFlask(), Event("order.paid")
        >>> app = Flask("shop")
        >>> app.config["THORN_DISPATCHER"] = "outbox"
        >>> webhooks.init_app(app)
        >>> with app.app_context():
        ...     receipt = order_paid.send({"number": 7})
        ...     webhooks.thorn.message(receipt.message.id).payload
        {'number': 7}
        >>> app.extensions["thorn"].close()
    """

    def __init__(
        self, app: Flask | None = None, *, store: Any = None, plugins: Iterable[Any] = ()
    ) -> None:
        self._store = store
        self._plugins = tuple(plugins)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Create a Flask app's Thorn; it is closed at interpreter exit.

        Call it after initialising the store's database: `db.init_app(app)`.

        Args:
            app: The Flask app, with its complete config.

        Raises:
            ConfigurationError, InvalidNameError: A setting is invalid, or the app has a Thorn.
        """
        if KEY in app.extensions:
            raise ConfigurationError(f"{app!r} already has a Thorn; call init_app once per app")
        settings = Settings.from_mapping(app.config, dotted=True)
        find_app_by(_thorn_here)
        with app.app_context():
            app.extensions[KEY] = Thorn(
                store=self._store_of(app),
                settings=settings,
                plugins=[FlaskPlugin(app), *self._plugins],
                default=False,
            )
        app.cli.add_command(ThornCommands(KEY))

    def _store_of(self, app: Flask) -> Any:
        store = app.config.get(STORE) or self._store or "memory://"
        return store() if callable(store) and not isinstance(store, Store) else store

    @property
    def thorn(self) -> Thorn:
        """The Thorn of the current Flask app.

        Raises:
            RuntimeError: There is no current one.
            ConfigurationError: It has no Thorn.
        """
        return current()


def current() -> Thorn:
    """Return the Thorn of the current Flask app.

    Raises:
        RuntimeError: There is no current one.
        ConfigurationError: It has no Thorn.
    """
    return thorn_of(current_app)


def thorn_of(app: Flask) -> Thorn:
    """Return the Thorn of a Flask app.

    Raises:
        ConfigurationError: It has none.
    """
    thorn: Thorn | None = app.extensions.get(KEY)
    if thorn is None:
        raise ConfigurationError(f"{app!r} has no Thorn; call ThornFlask.init_app(app) first")
    return thorn


current_thorn: Thorn = cast("Thorn", LocalProxy(current))
"""The Thorn of the current Flask app, a proxy like `current_app`."""


def _thorn_here() -> Thorn | None:
    return current_app.extensions.get(KEY) if has_app_context() else None
