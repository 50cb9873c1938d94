"""What the commands share: finding the user's app, and printing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from thorn_core.app import Thorn
from thorn_core.errors import ConfigurationError


def find_app(path: str | None) -> Thorn:
    """The user's app.

    Args:
        path: `module:attribute`; the attribute is a Thorn, or a function that makes one.

    Raises:
        ConfigurationError: There is none there.
    """
    if not path:
        raise ConfigurationError(
            "this command needs to know your app: thorn --app module:attribute …, or THORN_APP"
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
            f"--app is {path!r}, but {error}; run the command where the module can be imported"
        ) from error
    for name in attribute.removesuffix("()").split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"--app is {path!r}, but {found!r} has no {name!r}")
        found = getattr(found, name)
    if not isinstance(found, Thorn) and callable(found):
        found = found()
    if not isinstance(found, Thorn):
        raise ConfigurationError(f"--app is {path!r}, which is {found!r} and no Thorn app")
    return found


def write_json(values: Iterable[Any]) -> None:
    """Print values as JSON, a line each."""
    for value in values:
        click.echo(json.dumps(value, default=str, ensure_ascii=False))


def console() -> Console:
    """Where tables go: the terminal's width, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
