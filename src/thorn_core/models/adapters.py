"""ORM adapters for models, and the watchers that find the adapter of a class."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from thorn_core.hookspecs import hookimpl
from thorn_core.models.names import ModelNames, class_names, follow

if TYPE_CHECKING:
    from thorn_core.models.webhooks import ModelWebhooks


@runtime_checkable
class ModelAdapter(Protocol):
    """The operations that an ORM adapter provides for the classes of its ORM.

    Events show the values in the row. When a row was written, an adapter sends one of the six model
    signals, with an instance that has the values in the database, whatever form the program
    assigned: `"2"` for 2, a decimal with too many digits, a local time. So do previous values.
    """

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the six model signals for changes of a model; calling it twice is fine.

        It calls `webhooks.check(self)` as soon as the ORM knows the model's names: now, or when
        its mappers are configured or its apps are ready, but before the first signal.

        Args:
            webhooks: The webhooks of the decorated class, with its `.model` and events.

        Raises:
            ConfigurationError: The events use a name that the model doesn't have.
        """
        ...

    def names(self, model: type) -> ModelNames:
        """Return the names that events may use (columns, relations, properties) and their classes.

        Args:
            model: A class of the ORM's, or one that `names` said a name leads to; for those that
                aren't the ORM's, give `class_names(model)`.
        """
        ...

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The values of some attributes, as stored, by the names given.

        A relation's value is the primary key of the related instance, or a list of keys. Loads
        missing values.

        Args:
            instance: An instance of a class of the ORM.
            fields: Names, or paths such as `author.name`.
        """
        ...

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """Convert a value to the type of a column, without rounding: `"2"` to 2.

        Filters compare with the converted values of their declarations.

        Args:
            model: A class of the ORM's.
            field: The name of an attribute; if it isn't a column, the value is returned unchanged.
            value: The value in the declaration.

        Raises:
            ValueError, TypeError: The column can't hold it.
        """
        ...


class ModelWatcher(Protocol):
    """Has decorated classes watched: an app, or an ORM adapter on its behalf."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """Return the adapter to watch a class with; None if this watcher isn't responsible."""
        ...


class PlainModelAdapter:
    """The adapter for classes without an ORM, for which the program sends the model signals."""

    @hookimpl(trylast=True)
    def thorn_model_adapter(self, model: type) -> ModelAdapter:
        """Accept every class that no ORM adapter accepts."""
        return self

    def watch(self, webhooks: ModelWebhooks) -> None:
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
        """The adapter for a class."""
        adapter = self._found.get(model)
        if adapter is None:
            adapter = self._ask(model=model)
            # Don't cache None: a class without an adapter may be mapped later.
            if not isinstance(adapter, PlainModelAdapter):
                self._found[model] = adapter
        return adapter
