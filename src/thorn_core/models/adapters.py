"""The adapter for classes without an ORM, and the look-up of a class's adapter."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thorn_core.hookspecs import hookimpl
from thorn_core.models.names import class_names, follow
from thorn_core.ports.model_adapter import ModelAdapter, ModelNames


class PlainModelAdapter:
    """The adapter for classes without an ORM, for which the program sends the model signals."""

    @hookimpl(trylast=True)
    def thorn_model_adapter(self, model: type) -> ModelAdapter:
        """Accept every class that no ORM adapter accepts."""
        return self

    def watch(self, webhooks: Any) -> None:
        """Do nothing: there is no ORM to watch."""

    def names(self, model: type) -> ModelNames:
        """Return annotations, properties, and the attributes that methods assign."""
        return class_names(model)

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """Return the attributes with these names."""
        return {field: follow(instance, field) for field in fields}

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """Return the value unchanged, because there are no columns."""
        return value


class ModelAdapters:
    """The ORM adapters of an app, one look-up per class.

    Args:
        ask: The hook that finds the adapter.
    """

    def __init__(self, ask: Callable[..., ModelAdapter]) -> None:
        self._ask = ask
        self._found: weakref.WeakKeyDictionary[type, ModelAdapter] = weakref.WeakKeyDictionary()

    def of(self, model: type) -> ModelAdapter:
        """Return the adapter for a class."""
        adapter = self._found.get(model)
        if adapter is None:
            adapter = self._ask(model=model)
            # Don't cache None: a class without an adapter may be mapped later.
            if not isinstance(adapter, PlainModelAdapter):
                self._found[model] = adapter
        return adapter
