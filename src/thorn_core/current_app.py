"""The current app, which sends events that have no app of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from thorn_core.errors import ConfigurationError
from thorn_core.ports.app import App

_lock = threading.Lock()
_making = threading.RLock()
_default_app: App | None = None
_make_default: Callable[[], App] | None = None
_finders: tuple[Callable[[], App | None], ...] = ()


def get_app() -> App:
    """Return the app of the current context (`find_app_by`), or the default app.

    The default is the first app created, or the one that `make_default()` was called on.

    Raises:
        ConfigurationError: There is none.
    """
    app = app_here()
    if app is not None:
        return app
    if _make_default is None:
        raise ConfigurationError(
            "there is no app yet; create one first (app = Thorn()), or enter the context of"
            " a web app that has one; in a Django project, add 'thorn_django' to INSTALLED_APPS"
        )
    with _making:
        if _default_app is None:
            set_default_app(_make_default(), only_if_none=True)
    return get_app()


def make_default_app_by(make: Callable[[], App] | None) -> None:
    """Register a function that creates the default app when it is first needed.

    Args:
        make: Called by `get_app` if there is no default app or it was closed; None removes the
            function. Adapters of web frameworks use it.

    Example:
        >>> from thorn_core import Thorn, get_app
        >>> make_default_app_by(lambda: Thorn(dispatcher="outbox"))
        >>> get_app()
        <Thorn MemoryStore outbox>
        >>> make_default_app_by(None)
        >>> get_app().close()
    """
    global _make_default
    _make_default = make


def find_app_by(find: Callable[[], App | None]) -> None:
    """Register a function that finds the app by the context, such as the current request.

    Args:
        find: Called by `get_app` before it uses the default app; returns None if it knows no app.
            A function is registered only once.

    Example:
        >>> from contextvars import ContextVar
        >>> from thorn_core import Thorn, get_app
        >>> answering = ContextVar("answering", default=None)
        >>> find_app_by(answering.get)
        >>> with Thorn(default=False) as app:
        ...     token = answering.set(app)
        ...     found = get_app() is app
        ...     answering.reset(token)
        >>> found
        True
    """
    global _finders
    with _lock:
        if find not in _finders:
            _finders = (*_finders, find)


def app_here() -> App | None:
    """Return the app that a finder returns, or the default app; None if there is neither."""
    for find in _finders:
        app = find()
        if app is not None:
            return app
    return _default_app


def set_default_app(app: App | None, *, only_if_none: bool = False) -> None:
    """Make an app the default, or none.

    Args:
        app: The app; None for no default.
        only_if_none: Keep an existing default.
    """
    global _default_app
    with _lock:
        if not (only_if_none and _default_app is not None):
            _default_app = app


def forget_default_app(app: App) -> None:
    """Remove the default if it is this app, as when it is closed."""
    global _default_app
    with _lock:
        if _default_app is app:
            _default_app = None
