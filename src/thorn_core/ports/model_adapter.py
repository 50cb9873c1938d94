"""The model adapter port: the services of an ORM adapter for the classes of its ORM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class ModelNames:
    """The attribute names of a class's instances.

    Attributes:
        leads_to: The class of each name's value, by name. A path may continue with the names of
            that class; None means an unknown class, so any name may follow.
        many_to_many: Collections with detectable changes; None if unknown.
        secret: Names that `fields` must not contain, such as password columns.
        open: Instances may have other names too; only likely misspellings are refused.
    """

    leads_to: Mapping[str, type | None] = attrs.field(factory=dict)
    many_to_many: frozenset[str] | None = None
    secret: frozenset[str] = frozenset()
    open: bool = False


NamesOf = Callable[[type], ModelNames]


@runtime_checkable
class ModelAdapter(Protocol):
    """The operations of an ORM adapter on the classes of its ORM.

    Events show the values in the row. After a write, an adapter sends one of the six model signals.
    The instance and the previous values have the form of the database, even if the program assigned
    another one: `"2"` for 2, a decimal with too many digits, a local time.
    """

    def watch(self, webhooks: Any) -> None:
        """Send the six model signals for changes of a model; calling it twice is safe.

        It calls `webhooks.check(self)` before the first signal, as soon as the ORM knows the
        model's names: now, or when its mappers are configured or its apps are ready.

        Args:
            webhooks: The `ModelWebhooks` of the decorated class, with its `.model` and events.

        Raises:
            ConfigurationError: The events use an unknown name.
        """
        ...

    def names(self, model: type) -> ModelNames:
        """Return the names that events may use (columns, relations, properties) and their classes.

        Args:
            model: A class of the ORM, or a class in `ModelNames.leads_to`. For a class outside the
                ORM, return `class_names(model)`.
        """
        ...

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """Return the stored values of some attributes, by the given names.

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
            model: A class of the ORM.
            field: The name of an attribute; without a column of that name, return the value
                unchanged.
            value: The value in the declaration.

        Raises:
            ValueError, TypeError: The column can't hold it.
        """
        ...


class ModelWatcher(Protocol):
    """Watches decorated classes: an app, or an ORM adapter on its behalf."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """Return the adapter that watches a class, or None if this watcher isn't responsible."""
        ...
