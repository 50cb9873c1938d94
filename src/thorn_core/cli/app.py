"""Find the user's app by `--app module:attribute`, as Flask and Celery do."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from thorn_core.app import Thorn
from thorn_core.errors import ConfigurationError


def find_app(path: str | Callable[[], Thorn] | None) -> AbstractContextManager[Thorn]:
    """Open the user's app for a `with` block.

    Args:
        path: `module:attribute`; the attribute is a Thorn, or a function that returns one. If a
            framework runs the command: a function that returns the app, which stays open.

    Raises:
        ConfigurationError: There is no app.
    """
    if callable(path):
        return nullcontext(path())
    if not path:
        raise ConfigurationError(
            "this command needs your app: pass --app module:attribute after thorn, or set THORN_APP"
        )
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"--app is {path!r}; write module:attribute, as in shop.hooks:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--app is {path!r}, but {error}; run the command where that module can be imported"
        ) from error
    for name in attribute.removesuffix("()").split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"--app is {path!r}, but {found!r} has no {name!r}")
        found = getattr(found, name)
    if not isinstance(found, Thorn) and callable(found):
        found = _made_by(found, path)
    if not isinstance(found, Thorn):
        raise ConfigurationError(f"--app is {path!r}, but {found!r} is not a Thorn app")
    return found


def _made_by(factory: Any, path: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"--app is {path!r}, which can't be called without arguments; name an app, or a"
            " function without required arguments that returns one"
        ) from error
    return factory()
