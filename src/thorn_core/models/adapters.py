"""What an ORM adapter does for models, and who asks it to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs

from thorn_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from thorn_core.models.webhooks import ModelWebhooks


@runtime_checkable
class ModelAdapter(Protocol):
    """What an ORM adapter does for a model class."""

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the six model signals for changes of a model; calling it twice is fine.

        Args:
            webhooks: Of the decorated class: `.model`, and what its events ask for.
        """
        ...

    def values(self, instance: Any) -> Mapping[str, Any]:
        """All column values, by name."""
        ...


class ModelWatcher(Protocol):
    """Who wants decorated classes to be watched: an app, or an ORM adapter in its place."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """The adapter that is to watch a class; None if it isn't this watcher's."""
        ...


class PlainModelAdapter:
    """For classes without an ORM: the program sends the model signals itself."""

    @hookimpl(trylast=True)
    def thorn_model_adapter(self, model: type) -> ModelAdapter:
        """Takes what no ORM adapter takes."""
        return self

    def watch(self, webhooks: ModelWebhooks) -> None:
        """There is nothing to watch."""

    def values(self, instance: Any) -> Mapping[str, Any]:
        """Its public attributes."""
        if attrs.has(type(instance)):
            return attrs.asdict(instance, recurse=False)
        return {k: v for k, v in vars(instance).items() if not k.startswith("_")}


class ModelAdapters:
    """The ORM adapters of an app, each asked for once.

    Args:
        ask: The hook, which every plugin answers.
    """

    def __init__(self, ask: Callable[..., ModelAdapter]) -> None:
        self._ask = ask
        self._found: weakref.WeakKeyDictionary[type, ModelAdapter] = weakref.WeakKeyDictionary()

    def of(self, model: type) -> ModelAdapter:
        """The adapter for a class."""
        adapter = self._found.get(model)
        if adapter is None:
            adapter = self._ask(model=model)
            # A class without one may yet be mapped.
            if not isinstance(adapter, PlainModelAdapter):
                self._found[model] = adapter
        return adapter
