"""The plugin of a Flask app: its context, and the URLs of its views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from flask import Flask, current_app, has_app_context, has_request_context, request
from werkzeug.routing import BuildError

from thorn_core import ConfigurationError, hookimpl


class FlaskPlugin:
    """The plugin for a Flask app's Thorn.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    @hookimpl
    def thorn_calling(self) -> AbstractContextManager[object] | None:
        """Return the app's context, unless it is current already; the engine's thread needs it."""
        return None if self._is_current() else self._app.app_context()

    @hookimpl
    def thorn_reverse(self, view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return a view's path, below the root of the request or APPLICATION_ROOT.

        Raises:
            ConfigurationError: The view doesn't exist, or takes other arguments.
        """
        if args:
            raise ConfigurationError(
                f"the view {view!r} got the positional arguments {list(args)!r}; Flask views take"
                f" keyword arguments only: model_reverser('order', number='id')"
            )
        app, values = self._app, dict(kwargs)
        app.inject_url_defaults(view, values)
        urls = app.url_map.bind(
            app.config["SERVER_NAME"] or "localhost",
            script_name=request.root_path if self._answers() else app.config["APPLICATION_ROOT"],
            url_scheme=app.config["PREFERRED_URL_SCHEME"],
        )
        try:
            return urls.build(view, values)
        except BuildError as error:
            raise ConfigurationError(f"no URL for view {view!r} in {app!r}: {error}") from error

    @hookimpl
    def thorn_base_url(self) -> str | None:
        """Return the base URL by SERVER_NAME, never by the Host header, which clients control."""
        name = self._app.config["SERVER_NAME"]
        return f"{self._app.config['PREFERRED_URL_SCHEME']}://{name}" if name else None

    def _is_current(self) -> bool:
        return has_app_context() and current_app == self._app

    def _answers(self) -> bool:
        """Return whether the current request is for this app, not for an enclosing one."""
        if not (self._is_current() and has_request_context()):
            return False
        rule = request.url_rule
        return rule is not None and rule.map is self._app.url_map
