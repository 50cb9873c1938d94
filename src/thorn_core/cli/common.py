"""What the commands share: finding the user's app, and printing."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

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
        found = _made_by(found, path)
    if not isinstance(found, Thorn):
        raise ConfigurationError(f"--app is {path!r}, which is {found!r} and no Thorn app")
    return found


def _made_by(factory: Any, path: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"--app is {path!r}, which can't be called without arguments; name an app, or a"
            " function that makes one by itself"
        ) from error
    return factory()


class Amount(click.FloatRange):
    """A number within limits; `nan` is within none, though it compares as if it were."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def plain(value: object) -> Text:
    """Text that may come from elsewhere, fit for a terminal.

    It is no markup, and what could steer the terminal (escape sequences, changes of direction) is
    replaced.

    Args:
        value: Its text; None is none.

    Example:
        >>> plain("[bold]" + chr(27) + "[2J").plain == "[bold]" + chr(0xFFFD) + "[2J"
        True
    """
    text = "" if value is None else str(value).replace("\t", "    ")
    return Text(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def counted(number: int, one: str, many: str) -> str:
    """A number of things, in words.

    Example:
        >>> counted(1, "delivery", "deliveries"), counted(0, "delivery", "deliveries")
        ('1 delivery', '0 deliveries')
    """
    return f"{number} {one if number == 1 else many}"


def write_json(values: Iterable[Any]) -> None:
    """Print values as JSON, a line each."""
    for value in values:
        click.echo(json.dumps(value, default=str, ensure_ascii=False))


def console() -> Console:
    """Where tables go: the terminal's width, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
