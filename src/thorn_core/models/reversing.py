"""Reversers, which return an instance's URL by the name of a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import attrs

from thorn_core.callables import is_async
from thorn_core.current_app import get_app
from thorn_core.errors import ConfigurationError
from thorn_core.ports.app import App

Reverser = Callable[[Any], str | None]


def check_reverser(where: str, value: Any) -> Reverser | None:
    """Check the function that returns the `ref` of an instance, if there is one.

    Raises:
        ConfigurationError: It isn't callable, or is a coroutine function.
    """
    if value is None or (callable(value) and not is_async(value)):
        return value  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"{where} is {value!r}; use a plain function of the instance, or model_reverser('view')"
    )


@attrs.frozen
class ModelReverser:
    """Returns an instance's URL by the name of a view; created by `model_reverser`."""

    view: str
    args: tuple[str, ...]
    kwargs: Mapping[str, str]

    def __call__(self, instance: Any) -> str:
        """Return the URL, using the default app's web adapter."""
        return self.reverse(instance, get_app())

    def reverse(self, instance: Any, app: App) -> str:
        """Return the URL, using an app's web adapter."""
        return app.reverse(
            self.view,
            [attrgetter(path)(instance) for path in self.args],
            {key: attrgetter(path)(instance) for key, path in self.kwargs.items()},
        )


def model_reverser(view: str, *args: str, **kwargs: str) -> ModelReverser:
    """Create a reverser for a view whose arguments are attributes of the instance.

    Args:
        view: The view's name in the web framework.
        *args: Attributes for positional arguments, nested by dots: `category.name`.
        **kwargs: Attributes for named arguments.

    Example:
        >>> model_reverser("article:detail", "category.name", uuid="uuid")
        ModelReverser(view='article:detail', args=('category.name',), kwargs={'uuid': 'uuid'})
    """
    return ModelReverser(view, args, kwargs)
